#!/usr/bin/env bash
# Table 2, Kinetics-400 -> SSv2, rho = 0.90: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 39.46/67.25, adamae 36.62/65.27, videomae 35.70/64.46.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer k400 ssv2 0.90 "$@"
