#!/usr/bin/env bash
# Table 2, Kinetics-400 -> UCF101, rho = 0.90: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 86.23/97.27, adamae 84.98/96.48, videomae 84.41/96.25.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer k400 ucf101 0.90 "$@"
