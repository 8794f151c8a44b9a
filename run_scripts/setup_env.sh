#!/usr/bin/env bash
# Make .venv at the top of the checkout when there is none and install what is missing. Quick when nothing is.
#   run_scripts/setup_env.sh [EXTRAS]     EXTRAS: comma-separated, e.g. dev,deepspeed; default: deepspeed, which the row
#                                         scripts use on GPUs; '': none
# PYTHON names another interpreter to make the environment with; VENV another place for it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/run_scripts/lib/usage.sh"
usage "$@"
venv=${VENV:-$root/.venv}
extras=${1-deepspeed}

for extra in ${extras//,/ }; do   # pip installs all the same without one that it does not know
    grep -q "^ *\"$extra\": \[" "$root/setup.py" ||
        { echo "setup_env.sh: there are no extras '$extra'; setup.py has the list (extras_require)" >&2; exit 2; }
done

# The stamp remembers what was asked of which setup.py, from where: an editable install points at one checkout.
stamp="$venv/.installed"
wanted="$(cksum <"$root/setup.py") $root"
if [ -x "$venv/bin/python" ] && [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" = "$wanted" ]; then
    missing=
    for extra in ${extras//,/ }; do
        grep -qx "extra $extra" "$stamp" || missing=yes
    done
    [ -n "$missing" ] || exit 0
fi

if [ ! -x "$venv/bin/python" ]; then
    echo "making $venv" >&2
    "${PYTHON:-python3}" -m venv "$venv" || {
        echo "setup_env.sh: ${PYTHON:-python3} cannot make a virtual environment; install python3-venv or set PYTHON" >&2
        exit 2
    }
fi
echo "installing tats${extras:+ [$extras]} into $venv (a first time takes a minute or two: torch is large)" >&2
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$root${extras:+[$extras]}"
{
    echo "$wanted"
    [ -f "$stamp" ] && grep '^extra ' "$stamp" || true
    for extra in ${extras//,/ }; do echo "extra $extra"; done
} | awk '!seen[$0]++' >"$stamp.new"
mv "$stamp.new" "$stamp"
