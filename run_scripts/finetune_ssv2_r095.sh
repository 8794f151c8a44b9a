#!/usr/bin/env bash
# Table 1, SSv2, rho = 0.95: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 40.25/68.73, adamae 38.38/67.11, videomae 37.24/65.92.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
finetune ssv2 0.95 "$@"
