#!/usr/bin/env bash
# Table 2, SSv2 -> HMDB51, rho = 0.95: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 58.40/83.59, adamae 54.69/84.18, videomae 52.41/80.14.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
transfer ssv2 hmdb51 0.95 "$@"
