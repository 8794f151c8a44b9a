#!/usr/bin/env bash
# Random, tube, frame, AdaMAE and forms of TATS on real clips with labels: what frozen and fine-tuned features are worth,
# and what the masks look at. From scratch and a reading of frame differences stand beside them.
# Finished cells are kept: stop it and start it again at will, or ask for more.
#   run_scripts/compare_real_clips.sh CLIPS [--size small|gpu] [arguments of tats.engines.compare_clips: see its --help]
# CLIPS: folder with manifest.csv: path, label, group, fold (-1: trained on only). A group, e.g. a film, lies in one fold.
# small: a cell takes a quarter of an hour (random masks) to an hour of one CPU core, behind a random phase of 40 to 60
# minutes that the cells of a seed share; gpu: larger clips, a larger model, more epochs.
# E.g. `--methods scratch random tats --ratios .9 --seeds 0` runs three cells; --strict pre-trains without the tested
# fold; --jobs: cells at once, of one thread each.
# OUTPUT_ROOT: folder for the results instead of output/. OUTPUT_ROOT/real-clips-small holds the prepared clips, the
# cells, real_clips.csv and summary.md.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/run_scripts/lib/usage.sh"
usage "$@"
size=small clips=
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --size)
            [ $# -gt 1 ] || { echo "compare_real_clips.sh: $1 needs a value" >&2; exit 2; }
            size=$2
            shift 2 ;;
        --size=*) size=${1#*=}; shift ;;
        *)
            if [ -z "$clips" ] && [ ${#arguments[@]} -eq 0 ] && [ "${1#-}" = "$1" ]; then clips=$1; else arguments+=("$1"); fi
            shift ;;
    esac
done
[ -n "$clips" ] || { echo "compare_real_clips.sh: name the folder of the clips first: it holds manifest.csv" >&2; exit 2; }
case $size in
    small) pretrain=real_clips finetune=real_clips_finetune sizes=() ;;
    gpu) pretrain=real_clips_gpu finetune=real_clips_finetune_gpu sizes=(--short_side 160 --warm_epochs 200) ;;
    *) echo "compare_real_clips.sh: --size $size is unknown (small, gpu)" >&2; exit 2 ;;
esac

"$root/run_scripts/setup_env.sh" flow
python=${VENV:-$root/.venv}/bin/python
exec "$python" -m tats.engines.compare_clips "$clips" --out "${OUTPUT_ROOT:-$root/output}/real-clips-$size" \
    --pretrain "$root/run_scripts/settings/$pretrain.args" --finetune "$root/run_scripts/settings/$finetune.args" \
    ${sizes[@]+"${sizes[@]}"} ${arguments[@]+"${arguments[@]}"}
