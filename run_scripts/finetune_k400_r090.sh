#!/usr/bin/env bash
# Table 1, Kinetics-400, rho = 0.90: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 43.28/68.85, adamae 39.50/65.70, videomae 41.79/68.62.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
finetune k400 0.90 "$@"
