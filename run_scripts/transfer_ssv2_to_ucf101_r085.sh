#!/usr/bin/env bash
# Table 2, SSv2 -> UCF101, rho = 0.85: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 87.16/97.38, adamae 84.98/96.72, videomae 84.88/96.91.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer ssv2 ucf101 0.85 "$@"
