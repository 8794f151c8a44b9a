#!/usr/bin/env bash
# Table 6 CASE, UCF101, rho = 0.95: CASE is c1,c2,c3. Pre-training only, 32 clips x 8 GPUs, lr 1.5e-4 x 256/256.
# Paper, reconstruction error: 1e-4,1e-3,1e-3 .5188; 1e-4,1e-3,1e-4 .5167; 1e-4,1e-4,1e-3 .5246; 1e-3,1e-4,1e-4 .8482;
# 1e-4,1e-4,1e-4 .5135; 1e-5,1e-4,1e-4 .5239; 1e-3,1e-3,1e-4 .5215 and .7869 (printed twice); 1e-5,1e-5,1e-5 .5173.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
IFS=, read -r c1 c2 c3 <<<"${1:-}"
ablation 6 ucf101 "1e-4,1e-3,1e-3 1e-4,1e-3,1e-4 1e-4,1e-4,1e-3 1e-3,1e-4,1e-4 1e-4,1e-4,1e-4 1e-5,1e-4,1e-4 1e-3,1e-3,1e-4 1e-5,1e-5,1e-5" \
    1e-4,1e-4,1e-4 "${1:-}" --policy_coef "$c1" --value_coef "$c2" --entropy_coef "$c3" -- "${@:2}"
