#!/usr/bin/env bash
# Table 3d CASE, UCF101, rho = 0.95: reconstruction loss on normalised or raw patches. 32 clips x 8 GPUs, fine-tuning 8 x 8.
# Paper, top-1/top-5: l1_norm 81.51/95.58, l1_raw 81.41/95.02, mse_norm 81.75/95.29, mse_raw 81.61/95.14.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
case=${1:-} normalize=true
if [[ $case = *_raw ]]; then normalize=false; fi
ablation 3d ucf101 "l1_norm l1_raw mse_norm mse_raw" mse_norm "$case" --loss "${case%_*}" --normlize_target $normalize -- "${@:2}"
