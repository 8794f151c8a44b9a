#!/usr/bin/env bash
# Table 2, Kinetics-400 -> HMDB51, rho = 0.90: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 60.42/83.59, adamae 56.45/82.49, videomae 56.71/83.07.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer k400 hmdb51 0.90 "$@"
