#!/usr/bin/env bash
# Table 2, Kinetics-400 -> SSv2, rho = 0.85: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 38.39/66.47, adamae 36.72/65.72, videomae 36.42/65.50.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer k400 ssv2 0.85 "$@"
