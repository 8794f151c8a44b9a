#!/usr/bin/env bash
# TATS inside transformers.Trainer on moving shapes, in as many steps as demo.sh: trains transformers' own VideoMAE,
# saves it with the policy beside it, reads both back with from_pretrained, and prints what the policy looks at.
#   run_scripts/demo_transformers.sh [--out DIR] [--seed N] [...]      further flags: --help
# PYTHON names the interpreter; else that of VENV (.venv), else python3.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-${VENV:-$root/.venv}/bin/python}
command -v "$python" >/dev/null || python=python3
cause=$("$python" -c "import transformers, accelerate" 2>&1) || {
    echo "demo_transformers.sh: needs transformers and accelerate (${cause##*$'\n'}): pip install -e '.[huggingface]'" >&2
    exit 2
}
# Not python -m: the Trainer imports `datasets`, and must not find the folder of that name where it was started.
exec "$python" -c 'import sys
del sys.path[0]
from tats.datasets.program import run_program
from tats.engines.hook.trainer_demo import main
run_program(lambda: main(sys.argv[1:]))' --out "$root/output/trainer" "$@"
