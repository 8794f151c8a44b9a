#!/usr/bin/env bash
# A dress rehearsal: rehearse.sh ROW [ARGUMENTS], e.g. ucf101_r095, runs that row with its real flags on this machine for
# minutes: REHEARSE_STEPS (20) steps of pre-training, half with random masks, then saved, resumed and half with the
# method's own; as many of fine-tuning; a test of 20 videos. Then it prints clips a second, the share of waiting for
# data, peak memory, days to the end, and what would go wrong. METHOD, BASELINES, GPUS, DATA_ROOT, ... as for the rows;
# without DATA_ROOT, on moving shapes of 224 pixels. All goes to OUTPUT_ROOT/rehearsal/METHOD_ROW, which begins empty.
# On a CPU, where nobody runs a row, a step is one batch of a quarter of the row's clips, REHEARSE_STEPS is 4,
# 6 videos are tested, and there is a loader a core (10 at most): about ten minutes on two cores.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
row=${1:-}
row=${row#pretrain_} row=${row%.sh}
[ -x "$scripts/pretrain_$row.sh" ] || die "rehearse.sh takes a row of Table 1 or 9, e.g. ucf101_r095; got '$row'"
shift
read_arguments "$@"
on DRY_RUN && die "a rehearsal is short itself; DRY_RUN=1 works with pretrain_$row.sh"
on SMOKE && die "a rehearsal is of the real flags; SMOKE=1 works with pretrain_$row.sh"
defaults
need_deepspeed
dataset=${row%_r*} steps=${REHEARSE_STEPS:-$((GPUS > 0 ? 20 : 4))}
[[ $steps =~ ^[1-9][0-9]*$ ]] || die "REHEARSE_STEPS must be a number from 1 on, got '$steps'"
half=$(((steps + 1) / 2)) work=$OUTPUT_ROOT/rehearsal/${column}_$row
if [ -n "${DATA_ROOT:-}" ]; then (ANY_SIZE=1 find_lists "$dataset" train val test); fi

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

for flag in batch_size update_freq epochs test_num_segment test_num_crop; do   # bash counts with these
    value=$(value_of $flag ${rest[@]+"${rest[@]}"})
    [[ ! $value || $value =~ ^[1-9][0-9]*$ ]] || die "--$flag must be a number from 1 on, got '$value'"
done
{ rm -rf "$work" && mkdir -p "$work/lists/$dataset"; } 2>/dev/null || die "OUTPUT_ROOT=$OUTPUT_ROOT: $work cannot be written"

processes=$((NNODES * (GPUS > 0 ? GPUS : 1)))

# Clips of a step of the settings $1...
clips_a_step() {
    local batch micro
    batch=$(value_of batch_size "$@") micro=$(value_of update_freq "$@")
    echo $((batch * ${micro:-$(accumulation 2>/dev/null)} * processes))
}

# repeated LIST COUNT: that many of its rows, from the first again where it ends; COUNT 0: all, once.
repeated() {
    "$PYTHON" -c 'import sys
from tats.datasets.lists.list_file import read_list
from tats.datasets.program import run_program

def main():
    clips, count = read_list(sys.argv[1]), int(sys.argv[2])
    for row in range(count or len(clips)):
        print(clips.line(row % len(clips)))

run_program(main)' "$@"
}

# usual LIST: how long the paper's list is.
usual() {
    awk -v name="$dataset" -v list="$1" '$1 == name && $2 == list { print int(($3 + $4) / 2); exit }' "$settings/list_sizes.txt"
}

# Sets $count to the videos of the row's list $1. One of another length than the paper's is noted, and the paper's counts.
count_videos() {
    local said
    if ! said=$( (data=$source check_size "$dataset" "$1") 2>&1); then
        echo "${said#error: }" >>"$work/problems.txt"
        count=$(usual "$1")
    elif [ "$1" = val ] && [ -s "$work/problems.txt" ]; then   # beside a training list of another length
        count=$(usual test)
    else
        count=$(repeated "$source/$1.csv" 0 | wc -l)
    fi
}

pretraining_flags "$dataset"
finetuning_flags "$dataset"
for_pretraining=() for_finetuning=()
if [ "$GPUS" = 0 ]; then
    # Ten loaders, each with a decoder, take longer to start on a few cores than the steps do.
    loaders=$(nproc 2>/dev/null || echo 2)
    loaders=$((loaders < 10 ? loaders : 10))
    for_pretraining=(--update_freq 1 --batch_size $(($(value_of batch_size "${pretraining[@]}") / 4)) --num_workers "$loaders")
    for_finetuning=(--update_freq 1 --batch_size $(($(value_of batch_size "${finetuning[@]}") / 4)) --num_workers "$loaders")
fi
pretraining+=(${for_pretraining[@]+"${for_pretraining[@]}"} ${rest[@]+"${rest[@]}"})
finetuning+=(${for_finetuning[@]+"${for_finetuning[@]}"} ${rest[@]+"${rest[@]}"})
pretrain_clips=$((half * $(clips_a_step "${pretraining[@]}")))
finetune_clips=$((steps * $(clips_a_step "${finetuning[@]}")))
epochs="$(value_of epochs "${pretraining[@]}") $(value_of epochs "${finetuning[@]}")"
views=$(($(value_of test_num_segment "${finetuning[@]}") * $(value_of test_num_crop "${finetuning[@]}")))
validated=$((3 * processes * $(value_of batch_size "${finetuning[@]}")))
tested=$((GPUS == 0 ? 6 : 3 * processes > 20 ? 3 * processes : 20))
if [ -n "${DATA_ROOT:-}" ]; then
    source=$DATA_ROOT/$dataset videos=''
    for list in train val test; do
        count_videos $list
        videos+="$count "
    done
    if [ -f "$source/classes.txt" ]; then cp "$source/classes.txt" "$work/lists/$dataset"; fi
else
    source=$OUTPUT_ROOT/rehearsal/moving_shapes_224
    [ -f "$source/test.csv" ] || "$PYTHON" -m tats.datasets.moving_shapes --out "$source" --size 224 --render_size 256 \
        --frames 64 --train 8 --val 1 --test 2
    videos="$(usual train) $(usual test) $(usual test)"
    echo "no DATA_ROOT with $dataset/train.csv, val.csv, test.csv: moving shapes of 224 pixels stood in for" \
        "the videos, the loaders of your own may be slower" | tee -a "$work/problems.txt" >&2
fi
repeated "$source/test.csv" "$validated" >"$work/lists/$dataset/val.csv"
repeated "$source/test.csv" "$tested" >"$work/lists/$dataset/test.csv"

# part LOG SCRIPT ROWS ARGUMENTS...: what it says goes to the terminal and to LOG.
part() {
    local log=$1 script=$2 status=0 hint=
    repeated "$source/train.csv" "$3" >"$work/lists/$dataset/train.csv"
    DATA_ROOT=$work/lists ANY_SIZE=1 OF_A_TABLE=1 "$scripts/${script}_$row.sh" "${@:4}" \
        --warmup_epochs 0 --print_freq 1 --output_dir "$work/$script" 2>&1 | tee "$work/$log.log" >&2 || status=$?
    if [ "$status" = 137 ]; then hint=': it was killed, as the system does for want of memory (a smaller --batch_size)'; fi
    [ "$status" = 0 ] || die "$script of $row ended with $status$hint; what it said is in $work/$log.log"
}

random_epochs=0   # only TATS begins with other masks than its own
[ "$mask_type" != tats ] || random_epochs=$(value_of mae_only_epochs "${pretraining[@]}")
policy=(${for_pretraining[@]+"${for_pretraining[@]}"} ${rest[@]+"${rest[@]}"} --mae_only_epochs 1 --vis_clips 2 --save_ckpt_freq 1)
part pretrain pretrain "$pretrain_clips" "${policy[@]}" --epochs 1
part resume pretrain "$pretrain_clips" "${policy[@]}" --epochs 2
export CHECKPOINT=$work/pretrain/checkpoint-1.pth
part finetune finetune "$finetune_clips" ${for_finetuning[@]+"${for_finetuning[@]}"} ${rest[@]+"${rest[@]}"} --epochs 1
# shellcheck disable=SC2086  # several numbers
"$PYTHON" -m tats.engines.report.rehearsal "$work" --videos $videos --epochs $epochs --views "$views" \
    --clips "$pretrain_clips" "$finetune_clips" --tested "$validated" "$tested" --random_epochs "$random_epochs"
[ "$GPUS" -gt 0 ] || echo "On a CPU a batch had a quarter of the row's clips (memory is less than the row's), the test $tested videos," \
    "and there were $loaders loaders."
