#!/usr/bin/env bash
# Table 2, SSv2 -> UCF101, rho = 0.95: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 85.14/97.11, adamae 84.38/96.21, videomae 82.53/95.90.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer ssv2 ucf101 0.95 "$@"
