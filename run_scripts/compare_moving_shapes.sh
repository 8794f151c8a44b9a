#!/usr/bin/env bash
# Random, tube, frame, AdaMAE and TATS with one budget of visible tokens, on videos whose motion is known: what the
# masks look at, what the features are worth. Five other forms of TATS at one ratio (--form_ratios).
# Finished cells are kept: stop it and start it again at will.
#   run_scripts/compare_moving_shapes.sh [--size small|gpu] [--jitter X] [--object_scale X]
#                                        [arguments of tats.engines.compare_masks]
# small: 60 cells for 2 CPU cores; e.g. `--methods random tats --ratios .9` runs six of them.
# gpu: eight times the videos, five times the epochs. --jitter: shake of the camera, in sides of the frame.
# --object_scale: size of the objects; .6 leaves one token in twelve that moves instead of one in five.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
size=small jitter=0 object_scale=1
while [ $# -gt 0 ]; do
    case $1 in
        --size) size=$2; shift 2 ;;
        --jitter) jitter=$2; shift 2 ;;
        --object_scale) object_scale=$2; shift 2 ;;
        *) break ;;
    esac
done
case $size in
    small) train=1024 epochs=8 ;;
    gpu) train=8192 epochs=40 ;;
    *) echo "compare_moving_shapes.sh: --size $size is unknown (small, gpu)" >&2; exit 2 ;;
esac

"$root/run_scripts/setup_env.sh"
python=${VENV:-$root/.venv}/bin/python
out=${OUTPUT_ROOT:-$root/output}/compare-$size-jitter$jitter
[ "$object_scale" = 1 ] || out=$out-objects$object_scale
[ -f "$out/data/test_appearance.csv" ] ||
    "$python" -m tats.datasets.moving_shapes --out "$out/data" --train "$train" --jitter "$jitter" \
        --object_scale "$object_scale"
exec "$python" -m tats.engines.compare_masks --data "$out/data" --out "$out" --epochs "$epochs" \
    --pretrain "$root/run_scripts/settings/demo.args" --finetune "$root/run_scripts/settings/demo_finetune.args" "$@"
