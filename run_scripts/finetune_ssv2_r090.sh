#!/usr/bin/env bash
# Table 1, SSv2, rho = 0.90: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 40.79/69.30, adamae 38.10/66.29, videomae 37.85/66.86.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
finetune ssv2 0.90 "$@"
