#!/usr/bin/env bash
# Table 2, Kinetics-400 -> UCF101, rho = 0.85: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 86.94/97.67, adamae 85.49/96.93, videomae 84.91/96.51.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer k400 ucf101 0.85 "$@"
