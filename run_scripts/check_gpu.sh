#!/usr/bin/env bash
# Check this machine's GPUs in ten minutes: install what is missing, then run the eleven steps of tats.engines.check_gpu.
#   run_scripts/check_gpu.sh [--only N ...] [--minutes 10] [--device cpu] [--out check_gpu.json]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/run_scripts/lib/usage.sh"
usage "$@"
"$root/run_scripts/setup_env.sh" deepspeed
exec "${VENV:-$root/.venv}/bin/python" -m tats.engines.check_gpu "$@"
