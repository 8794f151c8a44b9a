#!/usr/bin/env bash
# Table 2, SSv2 -> HMDB51, rho = 0.90: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 60.35/85.42, adamae 55.86/84.31, videomae 55.92/83.40.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer ssv2 hmdb51 0.90 "$@"
