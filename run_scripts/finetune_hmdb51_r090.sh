#!/usr/bin/env bash
# Table 1, HMDB51, rho = 0.90: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 41.28/73.76, adamae 39.13/72.33, videomae 36.39/69.73.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
finetune hmdb51 0.90 "$@"
