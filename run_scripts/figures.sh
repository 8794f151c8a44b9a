#!/usr/bin/env bash
# The paper's Figures 2 and 4 to 15 (masks) and 3 (trajectory attention), from the runs of Table 1.
#   figures.sh          all;  figures.sh 10 3: those
# One data set and ratio each: TATS's checkpoint of that ratio, AdaMAE's masks in the last row; Figures 2 and 3 have all
# four data sets at .95, a sheet each. The paper does not name its videos: ROWS ("0 1 2 3") of the test list are drawn.
# From the environment: DATA_ROOT, OUTPUT_ROOT, PYTHON, TATS_RECIPE as for the rows; FIGURES, a folder (OUTPUT_ROOT/figures).
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
export GPUS=${GPUS:-0} ANY_SIZE=1
read_arguments
defaults
figures=${FIGURES:-$OUTPUT_ROOT/figures}
read -ra rows <<<"${ROWS:-0 1 2 3}"

draw() { # NUMBER DATASET RATIO FLAGS...
    local checkpoint number=$1 dataset=$2 name command others=()
    name=pretrain_${2}_$(tag "$3")
    find_lists "$dataset" test
    if [ "$number" -ge 4 ]; then
        METHOD=adamae find_checkpoint "$OUTPUT_ROOT/adamae/$name" "$name.sh"
        others=(--compare "$checkpoint")
    fi
    METHOD=tats find_checkpoint "$OUTPUT_ROOT/$column/$name" "$name.sh"
    command=("$PYTHON" -m tats.engines.run_mask_visualization --checkpoint "$checkpoint" --data_path "$data/test.csv"
        --rows "${rows[@]}" --data_set "$dataset" --out "$figures/figure_$(printf %02d "$number")" ${others[@]+"${others[@]}"}
        "${@:4}")
    if on DRY_RUN; then printf '%q ' "${command[@]}"; echo; else "${command[@]}"; fi
}

[ $# -gt 0 ] || set -- {2..15}
for number; do
    case $number in
        2) for dataset in k400 ssv2 ucf101 hmdb51; do draw 2 $dataset 0.95 --without error; done ;;
        3) for dataset in k400 ssv2 ucf101 hmdb51; do draw 3 $dataset 0.95 --trajectories all; done ;;
        [4-9] | 1[0-5])
            place=$((number - 4)) datasets=(k400 ssv2 ucf101 hmdb51) ratios=(0.95 0.90 0.85)
            draw "$number" "${datasets[place / 3]}" "${ratios[place % 3]}" ;;
        *) die "the paper's figures are 2 to 15 here (1 is a diagram), got '$number'" ;;
    esac
done
