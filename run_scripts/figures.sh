#!/usr/bin/env bash
# The paper's Figures 2 and 4 to 15 (masks) and 3 (trajectory attention), from the runs of Table 1.
#   figures.sh          all;  figures.sh 10 3: those;  figures.sh 10 --lr 1e-2: of the runs with that argument
# One data set and ratio each: TATS's checkpoint of that ratio, AdaMAE's masks in the last row; Figures 2 and 3 have all
# four data sets at .95, a sheet each. The paper does not name its videos: ROWS ("0 1 2 3") of the test list are drawn.
# A sheet whose checkpoint is missing is named and passed over.
# From the environment: DATA_ROOT, OUTPUT_ROOT, PYTHON, TATS_RECIPE, BASELINES, SEED as for the rows; COMPARE, the methods
# whose masks stand below those of TATS (adamae); FIGURES, a folder (OUTPUT_ROOT/figures).
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
export GPUS=${GPUS:-0} ANY_SIZE=1
unset CHECKPOINT
numbers=()
while [ $# -gt 0 ] && [[ $1 != -* ]]; do numbers+=("$1"); shift; done
[ ${#numbers[@]} -gt 0 ] || numbers=({2..15})
for number in "${numbers[@]}"; do
    [[ $number =~ ^[0-9]+$ && $number -ge 2 && $number -le 15 ]] ||
        die "the paper's figures are 2 to 15 here (1 is a diagram), got '$number'"
done
METHOD=tats
read_arguments "$@"
defaults
arguments=("$@")
figures=${FIGURES:-$OUTPUT_ROOT/figures}
read -ra rows <<<"${ROWS:-0 1 2 3}"
for number in "${rows[@]}"; do [[ $number =~ ^[0-9]+$ ]] || die "ROWS are numbers with spaces between, got '${ROWS:-}'"; done

# Sets $checkpoint to the last one of method $1 for data set $2 and ratio $3.
# shellcheck disable=SC2329  # called by draw
checkpoint_of() {
    local METHOD=$1 TATS_RECIPE=${TATS_RECIPE:-} BASELINES=${BASELINES:-} name variant
    read_arguments ${arguments[@]+"${arguments[@]}"}
    OF_A_TABLE=1 only_known run_mae_pretraining
    name=pretrain_${2}_$(tag "$3")
    pretraining_flags "$2"
    variant=$(variant_of run_mae_pretraining "${pretraining[@]}" --mask_ratio "$3" -- ${rest[@]+"${rest[@]}"})
    find_checkpoint "$OUTPUT_ROOT/$column/$name$variant" "$name.sh" ${rest[@]+"${rest[@]}"}
}

# shellcheck disable=SC2329  # called by supervise
draw() { # NUMBER DATASET RATIO FLAGS...
    local checkpoint number=$1 dataset=$2 method command others=() out label=$2
    if on SMOKE; then label=moving-shapes; fi
    out=$figures/figure_$(printf %02d "$number")
    if [ "$number" -lt 4 ]; then out+=/$dataset; fi   # videos of two data sets may have one name
    find_lists "$dataset" test
    if [ "$number" -ge 4 ]; then
        others=(--compare)
        for method in ${COMPARE:-adamae}; do
            case $method in
                random | frame | tube) others+=("$method"); continue ;;
                videomae) others+=(tube); continue ;;
            esac
            checkpoint_of "$method" "$dataset" "$3"
            others+=("$checkpoint")
        done
    fi
    checkpoint_of "tats" "$dataset" "$3"
    command=("$PYTHON" -m tats.engines.run_mask_visualization --checkpoint "$checkpoint" --data_path "$data/test.csv"
        --rows "${rows[@]}" --data_set "$label" --out "$out" ${others[@]+"${others[@]}"} "${@:4}")
    if on DRY_RUN; then printf '%q ' "${command[@]}"; echo; else "${command[@]}"; fi
}

sheets=()   # a line each: the arguments of draw
for number in "${numbers[@]}"; do
    place=$((number - 4)) datasets=(k400 ssv2 ucf101 hmdb51) ratios=(0.95 0.90 0.85)
    case $number in
        2) for dataset in "${datasets[@]}"; do sheets+=("2 $dataset 0.95 --without error"); done ;;
        3) for dataset in "${datasets[@]}"; do sheets+=("3 $dataset 0.95 --trajectories all"); done ;;
        *) sheets+=("$number ${datasets[place / 3]} ${ratios[place % 3]}") ;;
    esac
done
datasets=()
for sheet in "${sheets[@]}"; do
    read -ra words <<<"$sheet"
    datasets+=("${words[1]}")
done
check_lists test "${datasets[@]}"
failed=()
for sheet in "${sheets[@]}"; do
    read -ra words <<<"$sheet"
    if is_unlisted "${words[1]}"; then failed+=("figure ${words[0]}, ${words[1]}"); continue; fi
    status=0
    supervise draw "${words[@]}" || status=$?
    case $signalled:$status in
        [A-Z]*:* | *:130 | *:138 | *:143) exit $((status ? status : 143)) ;;
    esac
    [ "$status" = 0 ] || failed+=("figure ${words[0]}, ${words[1]}")
done
[ ${#failed[@]} = 0 ] && exit
[ ${#sheets[@]} = 1 ] && exit 2
echo "error: ${#failed[@]} of ${#sheets[@]} sheets were not drawn: $(printf '%s; ' "${failed[@]}")" >&2
exit 1
