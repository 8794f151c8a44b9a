#!/usr/bin/env bash
# Table 1, SSv2, rho = 0.85: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 39.96/68.10, adamae 37.92/66.63, videomae 37.63/66.47.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
finetune ssv2 0.85 "$@"
