#!/usr/bin/env bash
# Table 2, Kinetics-400 -> UCF101, rho = 0.95: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 85.17/96.77, adamae 84.03/96.50, videomae 82.40/95.80.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer k400 ucf101 0.95 "$@"
