#!/usr/bin/env bash
# Table 2, SSv2 -> HMDB51, rho = 0.85: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 59.64/84.83, adamae 55.47/82.81, videomae 54.82/82.03.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer ssv2 hmdb51 0.85 "$@"
