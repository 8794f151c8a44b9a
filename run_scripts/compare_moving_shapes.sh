#!/usr/bin/env bash
# Random, tube, frame, AdaMAE and TATS with one budget of visible tokens, on videos whose motion is known: what the
# masks look at, what the features are worth. Frame masking and five other forms of TATS at one ratio, .9.
# Finished cells are kept: stop it and start it again at will, or ask for more.
#   run_scripts/compare_moving_shapes.sh [--size small|gpu] [--jitter X] [--object_scale X] [--texture_scale X]
#                                        [--speed_scale X] [arguments of tats.engines.compare_masks: see its --help]
# small: 54 cells for 2 CPU cores; e.g. `--methods random tats --ratios .9` runs six of them.
# gpu: eight times the videos, five times the epochs. --jitter: shake of the camera, in sides of the frame.
# --object_scale: size of the objects; .6 leaves one token in twelve that moves instead of one in five.
# --texture_scale, --speed_scale: period of their textures, and their speed.
# OUTPUT_ROOT: folder for the results instead of output/. OUTPUT_ROOT/compare-small-jitter0 holds the data, the cells,
# moving_shapes.csv, moving_shapes.png and summary.md.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/run_scripts/lib/usage.sh"
usage "$@"
size=small jitter=0 object_scale=1 texture_scale=1 speed_scale=1
arguments=()
while [ $# -gt 0 ]; do
    case $1 in
        --size | --jitter | --object_scale | --texture_scale | --speed_scale)
            [ $# -gt 1 ] || { echo "compare_moving_shapes.sh: $1 needs a value" >&2; exit 2; }
            declare "${1#--}=$2"
            shift 2 ;;
        --size=* | --jitter=* | --object_scale=* | --texture_scale=* | --speed_scale=*)
            word=${1#--}
            declare "${word%%=*}=${word#*=}"
            shift ;;
        *) arguments+=("$1"); shift ;;
    esac
done
case $size in
    small) train=1024 epochs=8 ;;
    gpu) train=8192 epochs=40 ;;
    *) echo "compare_moving_shapes.sh: --size $size is unknown (small, gpu)" >&2; exit 2 ;;
esac

"$root/run_scripts/setup_env.sh" ""
python=${VENV:-$root/.venv}/bin/python
out=${OUTPUT_ROOT:-$root/output}/compare-$size-jitter$jitter
[ "$object_scale" = 1 ] || out=$out-objects$object_scale
[ "$texture_scale" = 1 ] || out=$out-textures$texture_scale
[ "$speed_scale" = 1 ] || out=$out-speed$speed_scale
[ -f "$out/data/test_appearance.csv" ] ||
    "$python" -m tats.datasets.moving_shapes --out "$out/data" --train "$train" --jitter "$jitter" \
        --object_scale "$object_scale" --texture_scale "$texture_scale" --speed_scale "$speed_scale"
exec "$python" -m tats.engines.compare_masks --data "$out/data" --out "$out" --epochs "$epochs" \
    --pretrain "$root/run_scripts/settings/demo.args" --finetune "$root/run_scripts/settings/demo_finetune.args" \
    ${arguments[@]+"${arguments[@]}"}
