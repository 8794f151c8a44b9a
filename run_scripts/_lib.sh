# shellcheck shell=bash
# What every row script does: find data, checkpoint and interpreter, put the settings files together, start the program.
# A script sources this file and calls one of pretrain, finetune, transfer, ablation, run_table. From the environment:
#   METHOD         tats (default), adamae, videomae, or any other --mask_type; also a column's name as below OUTPUT_ROOT:
#                  videomae_published, adamae_published, tats_ours
#   TATS_RECIPE    paper (default here: as printed) or ours; --tats_recipe likewise
#   BASELINES      table4 (default): videomae and adamae with Tables 4 and 7, too; published: with their projects' scripts
#   SEED           0; of pre-training and fine-tuning, as --seed. A table runs all of SEEDS ("0 1 2")
#   DATA_ROOT      holds ucf101/train.csv, val.csv, test.csv, and the same for hmdb51, k400, ssv2, ssv2full
#   OUTPUT_ROOT    runs go to OUTPUT_ROOT/METHOD/SCRIPT'S NAME ; default: output, here. tats_ours/..., videomae_published/...
#                  with TATS_RECIPE=ours, BASELINES=published.
#                  Arguments that change what is computed are added to the name: .../pretrain_ucf101_r095__seed=1
#   CHECKPOINT     start fine-tuning from this file, not from the pre-training run's last one
#   ANY_SIZE=1     take lists of any length (settings/list_sizes.txt has the paper's)
#   GPUS           on this node; default: all. 0: CPU.  NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT: several nodes
#   PYTHON         interpreter; default: .venv/bin/python of the checkout, else python3
#   DEEPSPEED=0    fine-tune without DeepSpeed; ZERO_STAGE (1)
#   DRY_RUN=1      print the command.  SMOKE=1: moving shapes, a tiny model, a CPU, seconds. Off: 0, false, no, or empty
# Further arguments go to the program behind all others, so they win. --explain: what the row reads the paper as.
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
settings=$scripts/settings
source "$scripts/lib/usage.sh"
source "$scripts/lib/switches.sh"
source "$scripts/lib/supervise.sh"
source "$scripts/lib/variants.sh"
source "$scripts/lib/lists.sh"
source "$scripts/lib/run.sh"
source "$scripts/lib/table.sh"
# A program that only prints its help or version ends well, and its folder would count as finished.
more_usage=${BASH_SOURCE[0]}
usage "$@"
for one; do
    [ "$one" != --version ] || { echo "error: --version is for the programs, and not for scripts" >&2; exit 2; }
done
unset one
paper_gpus=8   # batch sizes in the settings are for one of 8 GPUs

die() { echo "error: $*" >&2; exit 2; }

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
        die "tats is not installed for $PYTHON: run $(printf %q "$scripts/setup_env.sh"), or set PYTHON"
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

# Arguments -> $rest without --mask_type and --tats_recipe; METHOD, its $mask_type, $column, the folder of its runs, and
# $seed, empty for that of the settings.
read_arguments() {
    local before='' plugin=0
    rest=()
    seed=${SEED:-}
    while [ $# -gt 0 ]; do
        case $1 in
            --mask_type) METHOD=${2:-}; [ $# = 1 ] || shift ;;
            --mask_type=*) METHOD=${1#*=} ;;
            --tats_recipe) TATS_RECIPE=${2:-}; [ $# = 1 ] || shift ;;
            --tats_recipe=*) TATS_RECIPE=${1#*=} ;;
            --seed=*) seed=${1#*=}; rest+=("$1") ;;
            --explain | --explain=*) export DRY_RUN=1 EXPLAIN=1; rest+=("$1") ;;
            --plugin | --plugin=*) plugin=1; rest+=("$1") ;;
            *) if [ "$before" = --seed ]; then seed=$1; fi; rest+=("$1") ;;
        esac
        before=$1
        shift
    done
    [[ $seed =~ ^[0-9]*$ ]] || die "SEED (--seed) is one number, and SEEDS numbers with spaces between; got '$seed'"
    case ${METHOD:=tats} in
        videomae_published | adamae_published) METHOD=${METHOD%_published} BASELINES=published ;;
        tats_ours) METHOD=tats TATS_RECIPE=ours ;;
    esac
    case $METHOD in
        tube | videomae) METHOD=videomae mask_type=tube ;;
        learnable | adamae) METHOD=adamae mask_type=adamae ;;
        random | frame | tats) mask_type=$METHOD ;;
        *) [ $plugin = 1 ] || die "METHOD (--mask_type) is tats, adamae, videomae, random, frame, or a strategy that --plugin" \
            "brings in; got '$METHOD'"
            mask_type=$METHOD ;;
    esac
    column=$METHOD
    case ${TATS_RECIPE:=paper} in
        paper) ;;
        ours) if [ "$METHOD" = tats ]; then column=tats_ours; fi ;;
        *) die "TATS_RECIPE (--tats_recipe) is paper or ours, got '$TATS_RECIPE'" ;;
    esac
    case ${BASELINES:=table4}:$METHOD in
        published:videomae | published:adamae) column=${METHOD}_published ;;
        table4:* | published:*) ;;
        *) die "BASELINES is table4 or published, got '$BASELINES'" ;;
    esac
    export METHOD TATS_RECIPE BASELINES
    if [ "$seed" = "${SEED:-}" ] && [ -n "$seed" ]; then rest=(--seed "$seed" ${rest[@]+"${rest[@]}"}); fi
}

check_arguments() (read_arguments "$@")   # dies where they are wrong, and changes nothing

tag() { echo "r0${1#0.}"; }   # 0.95 -> r095

# Sets $checkpoint: CHECKPOINT, or the last one of the finished run in folder $1, which script $2 makes with arguments $3...
find_checkpoint() {
    local found=("$1"/checkpoint-*.pth)
    checkpoint=${CHECKPOINT:-}
    if [ -n "$checkpoint" ]; then
        on DRY_RUN || [ -e "$checkpoint" ] || die "CHECKPOINT=$checkpoint does not exist"
    elif on DRY_RUN; then
        checkpoint=$1/checkpoint-399.pth
    else
        if on SMOKE && [ ! -f "$1/finished" ] && [ -x "$scripts/$2" ]; then
            "$scripts/$2" "${@:3}"
            found=("$1"/checkpoint-*.pth)
        fi
        [ -f "$1/finished" ] && [ -f "${found[0]}" ] ||
            die "no finished pre-training in $1: run METHOD=$METHOD $(printf %q "$scripts")/$2 ${*:3} first, or set CHECKPOINT"
        checkpoint=$(printf '%s\n' "${found[@]}" | sort -V | tail -n 1)
    fi
}

# Sets $pretraining to the flags of pre-training on data set $1.
pretraining_flags() {
    pretraining=("@$settings/pretrain.args" "@$settings/pretrain_${1%full}.args")
    if [[ $column = *_published ]]; then pretraining+=("@$settings/published/$METHOD/pretrain_${1%full}.args"); fi
    if on SMOKE; then pretraining+=("@$settings/pretrain_smoke.args"); fi
    if [ "$mask_type" = tats ]; then pretraining+=(--tats_recipe "${TATS_RECIPE:-paper}"); fi
}

# Sets $finetuning likewise.
finetuning_flags() {
    finetuning=("@$settings/finetune.args" "@$settings/finetune_${1%full}.args")
    if [[ $column = *_published ]]; then finetuning+=("@$settings/published/$METHOD/finetune_${1%full}.args"); fi
    if on SMOKE; then finetuning+=("@$settings/finetune_smoke.args"); fi
}

# pretrain_as NAME DATASET RATIO FLAGS...   (user's arguments in $rest)
pretrain_as() {
    local name=$1 dataset=$2 ratio=$3 variant
    shift 3
    find_lists "$dataset" train
    pretraining_flags "$dataset"
    only_known run_mae_pretraining
    variant=$(variant_of run_mae_pretraining "${pretraining[@]}" --mask_ratio "$ratio" "$@" -- ${rest[@]+"${rest[@]}"})
    run "$OUTPUT_ROOT/$column/pretrain_$name$variant" tats.engines.run_mae_pretraining "${pretraining[@]}" \
        --data_path "$data/train.csv" --mask_type "$mask_type" --mask_ratio "$ratio" --update_freq "$(accumulation)" "$@"
}

# Leaves those of $rest that program $1 knows, where a table hands its arguments to several.
only_known() {
    local word known=()
    if ! on OF_A_TABLE; then return; fi
    while IFS= read -r word; do known+=("$word"); done < <(known_arguments "$1" ${rest[@]+"${rest[@]}"})
    rest=(${known[@]+"${known[@]}"})
}

# finetune_as RUN DATASET SOURCE SCRIPT SOURCE_DATASET RATIO: on DATASET from the pre-training run SOURCE, which SCRIPT
# makes. The pre-training has the same seed; inside a table, the table's other arguments too.
finetune_as() {
    local given=() name=$1 variant from
    find_lists "$2" train val test
    need_deepspeed
    if on OF_A_TABLE; then given=(${rest[@]+"${rest[@]}"}); elif [ -n "$seed" ]; then given=(--seed "$seed"); fi
    pretraining_flags "$5"
    from=$(variant_of run_mae_pretraining "${pretraining[@]}" --mask_ratio "$6" -- ${given[@]+"${given[@]}"})
    find_checkpoint "$OUTPUT_ROOT/$column/$3$from" "$4" ${given[@]+"${given[@]}"}
    only_known run_class_finetuning
    finetuning_flags "$2"
    variant=$(variant_of run_class_finetuning "${finetuning[@]}" -- ${rest[@]+"${rest[@]}"})
    from=${from%__seed=*}
    if [ -n "$from" ]; then name+=__from${from//__/_}; fi
    if [ "$GPUS" -gt 0 ] && [ "${DEEPSPEED:-1}" != 0 ]; then
        finetuning+=(--enable_deepspeed --zero_stage "${ZERO_STAGE:-1}")
    fi
    run "$OUTPUT_ROOT/$column/$name$variant" tats.engines.run_class_finetuning "${finetuning[@]}" --data_path "$data" \
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
    finetune_as "${name}_$(tag "$3")" "$2" "$source" "$source.sh" "$1" "$3"
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
        finetune_as "finetune_$name" "$dataset" "pretrain_$name" "ablation_$table.sh $case" "$dataset" 0.95
    fi
}
