#!/usr/bin/env bash
# Test with the oldest versions that setup.py allows; arguments go to pytest. VENV names another place for the
# environment. Every `name>=version` of install_requires becomes `name==version`.
#   run_scripts/test_floors.sh [tests/test_ppo.py ...]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/run_scripts/lib/usage.sh"
usage "$@"
venv=${VENV:-$root/.venv-floors}
cd "$root"
floors=$(sed -n '/install_requires/,/\],/p' setup.py | grep -o '"[A-Za-z0-9-]*>=[0-9.]*' | tr -d '"' | sed 's/>=/==/')
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
# shellcheck disable=SC2086  # one word a requirement
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable . $floors \
    "setuptools>=70" pytest pytest-rerunfailures pytest-timeout hypothesis safetensors h5py "fsspec[http]"
"$venv/bin/python" -m pip list --format freeze | grep -E "^($(echo "$floors" | sed 's/==.*//' | paste -sd '|'))=="
export OMP_NUM_THREADS=1
tests=(tests/test_{decode,kinds_of_files,odd_videos,folders,lists,shards,objects,kept_objects,windows,answers,transforms,models,models_golden}.py
       tests/test_{masking_contract,samplers,ppo,engine_ppo,learner,run_mae_pretraining,finetune_program,resume}.py)
[ $# -gt 0 ] || set -- "${tests[@]}"
exec "$venv/bin/python" -m pytest -q "$@"
