#!/usr/bin/env bash
# Table 1, HMDB51, rho = 0.90: 32 clips x 8 GPUs, lr 1.5e-4 x 256/256. Paper, fine-tuned, top-1/top-5: tats 41.28/73.76, adamae 39.13/72.33, videomae 36.39/69.73.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
pretrain hmdb51 0.90 "$@"
