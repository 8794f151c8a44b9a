#!/usr/bin/env bash
# Set up and run the whole suite; arguments go to pytest (run_scripts/test.sh -k masking).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/run_scripts/setup_env.sh" dev,deepspeed
cd "$root"
"${VENV:-$root/.venv}/bin/python" -m ruff check .
exec "${VENV:-$root/.venv}/bin/python" -m pytest "$@"
