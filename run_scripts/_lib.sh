# shellcheck shell=bash
# What every row script does: find data, checkpoint and interpreter, put the settings files together, start the program.
# A script sources this file and calls one of pretrain, finetune, transfer, ablation, run_table. From the environment:
#   METHOD         tats (default), adamae, videomae, or any other --mask_type
#   TATS_RECIPE    paper (default here: as printed) or ours
#   DATA_ROOT      holds ucf101/train.csv, val.csv, test.csv, and the same for hmdb51, k400, ssv2, ssv2full
#   OUTPUT_ROOT    runs go to OUTPUT_ROOT/METHOD/SCRIPT'S NAME (tats_ours/... with that recipe); default: output, here
#   CHECKPOINT     start fine-tuning from this file, not from the pre-training run's last one
#   GPUS           on this node; default: all. 0: CPU.  NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT: several nodes
#   PYTHON         interpreter; default: .venv/bin/python of the checkout, else python3
#   DEEPSPEED=0    fine-tune without DeepSpeed; ZERO_STAGE (1)
#   DRY_RUN=1      print the command.  SMOKE=1: moving shapes, a tiny model, a CPU, seconds
# Further arguments go to the program behind all others, so they win.
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
settings=$scripts/settings
paper_gpus=8   # batch sizes in the settings are for one of 8 GPUs

die() { echo "error: $*" >&2; exit 2; }
on() { [ "${!1:-0}" != 0 ]; }

defaults() {
    local checkout
    checkout=$(dirname "$scripts")
    if [ -z "${PYTHON:-}" ]; then
        PYTHON=${VENV:-$checkout/.venv}/bin/python
        [ -x "$PYTHON" ] || PYTHON=python3
    fi
    if on SMOKE; then GPUS=0; NNODES=1; DATA_ROOT=; OUTPUT_ROOT=${OUTPUT_ROOT:-$checkout/output/smoke}; fi
    OUTPUT_ROOT=${OUTPUT_ROOT:-$checkout/output}
    GPUS=${GPUS:-$(count_gpus)} NNODES=${NNODES:-1} NODE_RANK=${NODE_RANK:-0}
    [[ $GPUS =~ ^[0-9]+$ && $NNODES =~ ^[1-9][0-9]*$ ]] || die "GPUS and NNODES must be numbers, got '$GPUS' and '$NNODES'"
    if on DRY_RUN; then DATA_ROOT=${DATA_ROOT:-DATA_ROOT}; return; fi
    "$PYTHON" -c 'import tats.engines' 2>/dev/null ||
        die "tats is not installed for $PYTHON: run $scripts/setup_env.sh, or set PYTHON"
    [ "$NNODES" = 1 ] || [ -n "${MASTER_ADDR:-}" ] || die "NNODES=$NNODES: set MASTER_ADDR to the first node's name"
}

count_gpus() {
    local visible
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        IFS=, read -ra visible <<<"${CUDA_VISIBLE_DEVICES/#-1*/}"
        echo "${#visible[@]}"
    else
        { nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU' || true
    fi
}

# Arguments -> $rest without --mask_type; METHOD, its $mask_type, and $column, the folder of its runs.
read_arguments() {
    rest=()
    while [ $# -gt 0 ]; do
        case $1 in
            --mask_type) METHOD=${2:-}; [ $# = 1 ] || shift ;;
            --mask_type=*) METHOD=${1#*=} ;;
            *) rest+=("$1") ;;
        esac
        shift
    done
    case ${METHOD:=tats} in
        tube | videomae) METHOD=videomae mask_type=tube ;;
        learnable | adamae) METHOD=adamae mask_type=adamae ;;
        *) mask_type=$METHOD ;;
    esac
    column=$METHOD
    if [ "$METHOD:${TATS_RECIPE:-paper}" = tats:ours ]; then column=tats_ours; fi
}

tag() { echo "r0${1#0.}"; }   # 0.95 -> r095

# Sets $data to the folder of lists of data set $1, and checks that it has the lists $2...
find_lists() {
    local name=$1 list subset=
    case $1 in k400 | ssv2) subset=" --fraction val" ;; esac   # Sec. 4: as many videos as for validation, about 15 %
    shift
    data=${DATA_ROOT:-}/$name
    if on SMOKE; then
        data=$OUTPUT_ROOT/moving_shapes
        if ! on DRY_RUN && [ ! -f "$data/test.csv" ]; then
            "$PYTHON" -m tats.datasets.moving_shapes --out "$data" --train 64 --val 16 --test 16
        fi
        return
    fi
    if on DRY_RUN; then return; fi
    [ -n "${DATA_ROOT:-}" ] || die "set DATA_ROOT to the folder that holds $name/$1.csv (tats.datasets.build_lists makes it)"
    for list; do
        [ -f "$data/$list.csv" ] || die "no list $data/$list.csv: set DATA_ROOT, or make it with" \
            "$PYTHON -m tats.datasets.build_lists ${name%full} --root VIDEOS --out $data$subset"
    done
}

# Sets $checkpoint: CHECKPOINT, or the last one of the finished run in folder $1, which script $2 makes.
find_checkpoint() {
    local found=("$1"/checkpoint-*.pth)
    checkpoint=${CHECKPOINT:-}
    if [ -n "$checkpoint" ]; then
        on DRY_RUN || [ -e "$checkpoint" ] || die "CHECKPOINT=$checkpoint does not exist"
    elif on DRY_RUN; then
        checkpoint=$1/checkpoint-399.pth
    else
        if on SMOKE && [ ! -f "$1/finished" ] && [ -x "$scripts/$2" ]; then
            "$scripts/$2"
            found=("$1"/checkpoint-*.pth)
        fi
        [ -f "$1/finished" ] && [ -f "${found[0]}" ] ||
            die "no finished pre-training in $1: run METHOD=$METHOD $scripts/$2 first, or set CHECKPOINT"
        checkpoint=$(printf '%s\n' "${found[@]}" | sort -V | tail -n 1)
    fi
}

# Run `-m $2...` with output folder $1 and leave a note there when it has ended well.
run() {
    local output=$1 note command=("$PYTHON") meet=() word before='' status=0
    shift
    if [ "$GPUS" = 0 ]; then set -- "$@" --device cpu; fi
    set -- "$@" --output_dir "$output" ${rest[@]+"${rest[@]}"}
    if [ "$NNODES" -gt 1 ] && [ -n "${SRUN:-}" ]; then   # inside slurm.sh: one srun starts all nodes
        command=("$SRUN" "$PYTHON")
        meet=(--rdzv_backend=c10d --rdzv_endpoint="$MASTER_ADDR:${MASTER_PORT:-29500}" --rdzv_id="${SLURM_JOB_ID:-0}")
    elif [ "$NNODES" -gt 1 ]; then
        meet=(--node_rank="$NODE_RANK" --master_addr="${MASTER_ADDR:-}" --master_port="${MASTER_PORT:-29500}")
    elif [ "$GPUS" -gt 1 ]; then
        meet=(--standalone)
    fi
    if [ ${#meet[@]} -gt 0 ]; then
        command+=(-m torch.distributed.run --nnodes="$NNODES" --nproc_per_node="$GPUS" "${meet[@]}")
    fi
    note=$(printf '%q ' "$@")
    if on DRY_RUN; then printf '%q ' "${command[@]}" -m "$@"; echo; return; fi
    for word; do   # the last --output_dir counts
        if [ "$before" = --output_dir ]; then output=$word; elif [[ $word = --output_dir=* ]]; then output=${word#*=}; fi
        before=$word
    done
    if on SKIP_FINISHED && [ "$(cat "$output/finished" 2>/dev/null)" = "$note" ]; then
        echo "finished before: $output" >&2
        return
    fi
    rm -f "$output/finished" "$output/stopped"
    "${command[@]}" -m "$@" || status=$?
    if [ -f "$output/stopped" ]; then   # saved and ended by a signal: the program's exit code is 0, torchrun's 1
        echo "stopped: $output; the same command goes on" >&2
        exit 143
    fi
    [ "$status" = 0 ] || return "$status"
    if [ "$NODE_RANK" = 0 ]; then echo "$note" >"$output/finished"; fi
}

# Micro-batches a step, so that any number of GPUs trains on the batch of the paper's 8.
accumulation() {
    local processes=$((NNODES * (GPUS > 0 ? GPUS : 1)))
    if on SMOKE; then echo 1; return; fi
    [ $((paper_gpus % processes)) = 0 ] ||
        echo "note: $processes GPUs cannot make the batch of $paper_gpus; the learning rate is scaled to what they do" >&2
    echo $((processes < paper_gpus ? (paper_gpus + processes / 2) / processes : 1))
}

# pretrain_as NAME DATASET RATIO FLAGS...   (user's arguments in $rest)
pretrain_as() {
    local name=$1 dataset=$2 ratio=$3 flags=("@$settings/pretrain.args" "@$settings/pretrain_${2%full}.args")
    shift 3
    find_lists "$dataset" train
    if on SMOKE; then flags+=("@$settings/pretrain_smoke.args"); fi
    if [ "$mask_type" = tats ]; then flags+=(--tats_recipe "${TATS_RECIPE:-paper}"); fi
    run "$OUTPUT_ROOT/$column/pretrain_$name" tats.engines.run_mae_pretraining "${flags[@]}" --data_path "$data/train.csv" \
        --mask_type "$mask_type" --mask_ratio "$ratio" --update_freq "$(accumulation)" "$@"
}

# finetune_as RUN DATASET SOURCE SCRIPT: on DATASET from the pre-training run SOURCE, which SCRIPT makes
finetune_as() {
    local flags=("@$settings/finetune.args" "@$settings/finetune_${2%full}.args")
    find_lists "$2" train val test
    find_checkpoint "$OUTPUT_ROOT/$column/$3" "$4"
    if on SMOKE; then flags+=("@$settings/finetune_smoke.args"); fi
    if [ "$GPUS" -gt 0 ] && [ "${DEEPSPEED:-1}" != 0 ]; then
        flags+=(--enable_deepspeed --zero_stage "${ZERO_STAGE:-1}")
    fi
    run "$OUTPUT_ROOT/$column/$1" tats.engines.run_class_finetuning "${flags[@]}" --data_path "$data" \
        --finetune "$checkpoint" --update_freq "$(accumulation)"
}

# pretrain DATASET RATIO ARGUMENTS...
pretrain() {
    read_arguments "${@:3}"
    defaults
    pretrain_as "$1_$(tag "$2")" "$1" "$2"
}

# finetune DATASET RATIO ARGUMENTS...
finetune() { transfer "$1" "$1" "${@:2}"; }

# transfer SOURCE TARGET RATIO ARGUMENTS...: fine-tune on TARGET what was pre-trained on SOURCE
transfer() {
    local source name=finetune_$2
    read_arguments "${@:4}"
    defaults
    source=pretrain_$1_$(tag "$3")
    if [ "$1" != "$2" ]; then name=transfer_$1_to_$2; fi
    export METHOD
    finetune_as "${name}_$(tag "$3")" "$2" "$source" "$source.sh"
}

# ablation TABLE DATASET "CASES" USUAL CASE FLAGS... -- ARGUMENTS...: TATS at rho .95 with the FLAGS of one CASE.
# The USUAL case is Table 1's run itself. Tables 5 and 6 report the reconstruction error: no fine-tuning.
ablation() {
    local table=$1 dataset=$2 cases=$3 usual=$4 case=$5 flags=() name
    [[ -n $case && " $cases " == *" $case "* ]] || die "Table $table has the cases: $cases; got '$case'"
    shift 5
    while [ "$1" != -- ]; do flags+=("$1"); shift; done
    METHOD=tats
    read_arguments "${@:2}"
    [ "$METHOD" = tats ] || die "Table $table is about TATS; --mask_type does not apply"
    defaults
    name=${table}_${case//,/_}
    if [ "$dataset" != ucf101 ]; then name=${table}_${dataset}_${case//,/_}; fi
    if [ "$case" = "$usual" ]; then name=${dataset}_r095 flags=(); fi
    if [ "${STAGE:-pretrain}" = pretrain ]; then
        pretrain_as "$name" "$dataset" 0.95 ${flags[@]+"${flags[@]}"}
    fi
    if [ "${STAGE:-finetune}" = finetune ] && [[ $table != [56] ]]; then
        finetune_as "finetune_$name" "$dataset" "pretrain_$name" "ablation_$table.sh $case"
    fi
}

# run_table TABLE "KINDS" "ROWS" [PATTERN...] [ARGUMENTS...]: every row whose name holds a PATTERN, for all METHODS, each
# as KIND_ROW.sh; what is finished is passed over, a failed row does not stop the others. LIST_ROWS=1 names them only.
run_table() {
    local table=$1 kinds=$2 rows=$3 patterns=() failed=() todo=() row method kind status words
    shift 3
    while [ $# -gt 0 ] && [[ $1 != -* ]]; do patterns+=("$1"); shift; done
    for row in $rows; do
        matches "$row" ${patterns[@]+"${patterns[@]}"} || continue
        for method in ${METHODS:-${METHOD:-videomae adamae tats}}; do todo+=("$method $row"); done
    done
    [ ${#todo[@]} -gt 0 ] || die "Table $table has no row like '${patterns[*]}'; its rows: $rows"
    if on LIST_ROWS; then printf '%s\n' "${todo[@]}"; return; fi
    unset CHECKPOINT
    for words in "${todo[@]}"; do
        read -r method row <<<"$words"
        for kind in $kinds; do
            status=0
            run_row "$method" "$kind" "$row" "$@" || status=$?
            case $status in 130 | 143) exit "$status" ;; esac   # Ctrl-C and SIGTERM mean the whole table
            [ "$status" = 0 ] || { failed+=("METHOD=$method ${kind}_$row"); break; }
        done
    done
    defaults
    on DRY_RUN || "$PYTHON" -m tats.engines.tables "$OUTPUT_ROOT" --tables "$table" --recipe "${TATS_RECIPE:-paper}"
    [ ${#failed[@]} = 0 ] || { echo "error: ${#failed[@]} of ${#todo[@]} rows failed: ${failed[*]}" >&2; exit 1; }
}

matches() { # ROW PATTERN...
    local row=$1 pattern
    shift
    [ $# -gt 0 ] || return 0
    for pattern; do [[ $row != *"$pattern"* ]] || return 0; done
    return 1
}

run_row() { # METHOD KIND ROW ARGUMENTS...
    local method=$1 words=("$2_$3.sh")
    if [ "$2" = ablation ]; then words=("ablation_${3%%_*}.sh" "${3#*_}"); fi
    SKIP_FINISHED=1 METHOD=$method "$scripts/${words[0]}" "${words[@]:1}" "${@:4}"
}
