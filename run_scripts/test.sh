#!/usr/bin/env bash
# Set up and run the whole suite; arguments go to pytest.
#   run_scripts/test.sh [-k masking ...]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/run_scripts/lib/usage.sh"
usage "$@"
"$root/run_scripts/setup_env.sh" dev,deepspeed
cd "$root"
python=${VENV:-$root/.venv}/bin/python
"$python" -m ruff check .
# One thread a process: the tests are small, and two processes of two threads each would wait for one another.
export OMP_NUM_THREADS=1
exec "$python" -m pytest -n "${WORKERS:-2}" --dist loadfile --no-loadscope-reorder --durations=15 "$@"
