#!/usr/bin/env bash
# Table 1, Kinetics-400, rho = 0.85: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 43.24/68.76, adamae 38.97/64.68, videomae 42.26/68.28.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
finetune k400 0.85 "$@"
