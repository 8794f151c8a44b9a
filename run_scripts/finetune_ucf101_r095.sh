#!/usr/bin/env bash
# Table 1, UCF101, rho = 0.95: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 81.75/95.29, adamae 80.83/95.26, videomae 65.86/89.14.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
finetune ucf101 0.95 "$@"
