#!/usr/bin/env bash
# A dress rehearsal: rehearse.sh ROW [ARGUMENTS], e.g. ucf101_r095, runs that row with its real flags on this machine for
# minutes: REHEARSE_STEPS (20) steps of pre-training, half with random masks, then saved, resumed and half with the
# method's own; as many of fine-tuning; a test of 20 videos. Then it prints clips a second, the share of waiting for
# data, peak memory, days to the end, and what would go wrong. METHOD, BASELINES, GPUS, DATA_ROOT, ... as for the rows;
# without DATA_ROOT, on moving shapes of 224 pixels. All goes to OUTPUT_ROOT/rehearsal/METHOD_ROW, which begins empty.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
row=${1:-}
[ -x "$scripts/pretrain_$row.sh" ] || die "rehearse.sh takes a row of Table 1 or 9, e.g. ucf101_r095; got '$row'"
shift
read_arguments "$@"
defaults
on DRY_RUN && die "a rehearsal is short itself; DRY_RUN=1 works with pretrain_$row.sh"
dataset=${row%_r*} steps=${REHEARSE_STEPS:-20}
[[ $steps =~ ^[1-9][0-9]*$ ]] || die "REHEARSE_STEPS must be a number from 1 on, got '$steps'"
half=$(((steps + 1) / 2)) work=$OUTPUT_ROOT/rehearsal/${column}_$row
rm -rf "$work"
mkdir -p "$work/lists/$dataset"

# The last value of flag $1 among the arguments $2...
value_of() {
    local flag=$1 word last='' before=''
    shift
    while IFS= read -r word; do
        if [ "$before" = "--$flag" ]; then last=$word; fi
        if [[ $word = --$flag=* ]]; then last=${word#*=}; fi
        before=$word
    done < <(for word; do if [[ $word = @* ]]; then sed 's/#.*//' "${word#@}" | tr -s ' ' '\n'; else echo "$word"; fi; done)
    echo "$last"
}

# Clips of a step of the settings $1...
clips_a_step() {
    local batch micro
    batch=$(value_of batch_size "$@") micro=$(value_of update_freq "$@")
    echo $((batch * ${micro:-$(accumulation 2>/dev/null)} * NNODES * (GPUS > 0 ? GPUS : 1)))
}

repeated() { # LIST COUNT: that many of its rows, from the first again where it ends
    awk -v count="$2" 'NF { row[n++] = $0 } END { for (i = 0; i < count; i++) print row[i % n] }' "$1"
}

if [ -n "${DATA_ROOT:-}" ] && [ -f "$DATA_ROOT/$dataset/train.csv" ]; then
    source=$DATA_ROOT/$dataset
    rows=$(grep -c '[^[:space:]]' "$source/train.csv")
else
    source=$OUTPUT_ROOT/rehearsal/moving_shapes_224
    [ -f "$source/test.csv" ] || "$PYTHON" -m tats.datasets.moving_shapes --out "$source" --size 224 --render_size 256 \
        --frames 64 --train 16 --val 1 --test 4
    rows=$(awk -v name="$dataset" '$1 == name && $2 == "train" { print int(($3 + $4) / 2); exit }' "$settings/list_sizes.txt")
    echo "no $dataset/train.csv in DATA_ROOT: moving shapes of 224 pixels stand in for its videos" >&2
fi
pretraining_flags "$dataset"
finetuning_flags "$dataset"
pretrain_clips=$((half * $(clips_a_step "${pretraining[@]}" ${rest[@]+"${rest[@]}"})))
finetune_clips=$((steps * $(clips_a_step "${finetuning[@]}" ${rest[@]+"${rest[@]}"})))
epochs="$(value_of epochs "${pretraining[@]}") $(value_of epochs "${finetuning[@]}")"
repeated "$source/test.csv" 20 | tee "$work/lists/$dataset/val.csv" >"$work/lists/$dataset/test.csv"

# part LOG SCRIPT ROWS ARGUMENTS...: what it says goes to the terminal and to LOG.
part() {
    local log=$1 script=$2 status=0
    repeated "$source/train.csv" "$3" >"$work/lists/$dataset/train.csv"
    DATA_ROOT=$work/lists ANY_SIZE=1 OF_A_TABLE=1 "$scripts/${script}_$row.sh" ${rest[@]+"${rest[@]}"} "${@:4}" \
        --warmup_epochs 0 --output_dir "$work/$script" 2>&1 | tee "$work/$log.log" >&2 || status=$?
    [ "$status" = 0 ] || die "$script of $row ended with $status; what it said is in $work/$log.log"
}

random_epochs=0   # only TATS begins with other masks than its own
[ "$mask_type" != tats ] || random_epochs=$(value_of mae_only_epochs "${pretraining[@]}" ${rest[@]+"${rest[@]}"})
policy=(--mae_only_epochs 1 --vis_clips 2 --save_ckpt_freq 1)
part pretrain pretrain "$pretrain_clips" "${policy[@]}" --epochs 1
part resume pretrain "$pretrain_clips" "${policy[@]}" --epochs 2
export CHECKPOINT=$work/pretrain/checkpoint-1.pth
part finetune finetune "$finetune_clips" --epochs 1
# shellcheck disable=SC2086  # two numbers
"$PYTHON" -m tats.engines.report.rehearsal "$work" --rows "$rows" --epochs $epochs \
    --clips "$pretrain_clips" "$finetune_clips" --random_epochs "$random_epochs"
