#!/usr/bin/env bash
# Table 6 CASE, UCF101, rho = 0.95: CASE is c1,c2,c3. Pre-training only, 32 clips x 8 GPUs, lr 1.5e-4 x 256/256.
# Paper, reconstruction error: 1e-4,1e-3,1e-3 .5188; 1e-4,1e-3,1e-4 .5167; 1e-4,1e-4,1e-3 .5246; 1e-3,1e-4,1e-4 .8482;
# 1e-4,1e-4,1e-4 .5135; 1e-5,1e-4,1e-4 .5239; 1e-3,1e-3,1e-4 .5215 and .7869 (printed twice); 1e-5,1e-5,1e-5 .5173.
# The loss is divided by c1, so cases with the same c2/c1 and c3/c1 are one run, and are run once. Of the others, those
# with the same c3/c1 differ only in the value network's rate, which AdamW equals out but for its epsilon.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
case=${1:-}
case $case in
    1e-5,1e-5,1e-5) twin=1e-4,1e-4,1e-4 ;;
    1e-5,1e-4,1e-4) twin=1e-4,1e-3,1e-3 ;;
    *) twin=$case ;;
esac
if [ "$twin" != "$case" ]; then echo "note: $case is the same run as $twin: the loss is divided by c1" >&2; fi
IFS=, read -r c1 c2 c3 <<<"$twin"
ablation 6 ucf101 "1e-4,1e-3,1e-3 1e-4,1e-3,1e-4 1e-4,1e-4,1e-3 1e-3,1e-4,1e-4 1e-4,1e-4,1e-4 1e-5,1e-4,1e-4 1e-3,1e-3,1e-4 1e-5,1e-5,1e-5" \
    1e-4,1e-4,1e-4 "$twin" --policy_coef "$c1" --value_coef "$c2" --entropy_coef "$c3" -- "${@:2}"
