#!/usr/bin/env bash
# Table 1, UCF101, rho = 0.85: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 85.94/96.98, adamae 83.98/96.37, videomae 80.36/94.95.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
finetune ucf101 0.85 "$@"
