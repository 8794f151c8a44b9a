#!/usr/bin/env bash
# Table 2, Kinetics-400 -> HMDB51, rho = 0.85: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 60.81/84.44, adamae 55.79/84.44, videomae 55.60/82.55.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer k400 hmdb51 0.85 "$@"
