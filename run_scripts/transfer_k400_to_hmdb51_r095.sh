#!/usr/bin/env bash
# Table 2, Kinetics-400 -> HMDB51, rho = 0.95: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 58.14/82.62, adamae 54.10/81.25, videomae 53.26/79.75.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer k400 hmdb51 0.95 "$@"
