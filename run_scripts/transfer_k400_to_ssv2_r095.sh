#!/usr/bin/env bash
# Table 2, Kinetics-400 -> SSv2, rho = 0.95: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 38.13/66.48, adamae 36.88/65.64, videomae 34.11/62.64.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer k400 ssv2 0.95 "$@"
