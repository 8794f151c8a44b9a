#!/usr/bin/env bash
# From nothing to a learned mask in minutes on a CPU: install, write a set of small .mp4 files with known motion,
# pre-train a tiny model on it with random masks and with TATS, fine-tune both a little, print what the policy looks at,
# draw pictures.
#   run_scripts/demo.sh [--mask_type tats|adamae|...] [--long] [--seed N] [--out DIR]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/run_scripts/lib/usage.sh"
usage "$@"
mask_type=tats seed=0 epochs=13 out=$root/output/demo
while [ $# -gt 0 ]; do
    case $1 in
        --mask_type | --seed | --out) [ -n "${2:-}" ] || { echo "demo.sh: $1 needs a value" >&2; exit 2; } ;;&
        --mask_type) mask_type=$2; shift 2 ;;
        --seed) seed=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        --long) epochs=36; shift ;;
        *) echo "demo.sh: unknown option $1 (known: --mask_type NAME, --long, --seed N, --out DIR)" >&2; exit 2 ;;
    esac
done

"$root/run_scripts/setup_env.sh" ""
python=${VENV:-$root/.venv}/bin/python
data=$out/data
mkdir -p "$out"
if [ ! -f "$data/test.csv" ]; then
    echo "== writing videos of moving shapes: $data" >&2
    "$python" -m tats.datasets.moving_shapes --out "$data"
fi

last=checkpoint-$((epochs - 1)).pth
train() { # mask type: pre-training, then fine-tuning on eight directions of motion
    local run=$out/$1-seed$seed
    echo "== pre-training with --mask_type $1: $run" >&2
    "$python" -m tats.engines.run_mae_pretraining "@$root/run_scripts/settings/demo.args" --data_path "$data/train.csv" \
        --mask_type "$1" --output_dir "$run" --seed "$seed" --epochs "$epochs"
    [ -f "$run/$last" ] || {   # a signal ends pre-training with a checkpoint and exit code 0
        echo "demo.sh: stopped; the same command goes on from here" >&2
        exit 1
    }
    echo "== fine-tuning $run on eight directions of motion" >&2
    "$python" -m tats.engines.run_class_finetuning "@$root/run_scripts/settings/demo_finetune.args" \
        --data_path "$data" --finetune "$run/$last" --output_dir "$run/finetune" --seed "$seed"
}
random=$out/random-seed$seed learned=$out/$mask_type-seed$seed
if [ "$mask_type" = random ]; then
    train random
elif [ "$(nproc)" = 1 ]; then
    train random
    train "$mask_type"
else   # steps so small take one core each
    echo "== random masks at the same time, what they print: $random.log" >&2
    set -m   # a process group of its own, which ends with this script
    train random >"$random.log" 2>&1 &
    beside=$!
    set +m
    trap 'kill -TERM -- "-$beside" 2>/dev/null && wait "$beside" || true' EXIT   # until it is saved
    train "$mask_type"
    wait "$beside" || { tail -n 3 "$random.log" >&2; exit 1; }
fi
"$python" -m tats.engines.measure_masks --data "$data" --out "$out/masks-seed$seed.json" \
    --checkpoint "$random/$last" "$learned/$last" --fine_tuned "$random/finetune/result.json" "$learned/finetune/result.json"
"$python" -m tats.engines.run_mask_visualization --checkpoint "$learned/$last" --compare random tube \
    --data_path "$data/val.csv" --rows 0 1 2 --out "$out/pictures-seed$seed"
echo "pictures: $out/pictures-seed$seed" >&2
