#!/usr/bin/env bash
# Table 2, SSv2 -> UCF101, rho = 0.90: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 86.81/97.51, adamae 84.64/97.06, videomae 83.88/96.75.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer ssv2 ucf101 0.90 "$@"
