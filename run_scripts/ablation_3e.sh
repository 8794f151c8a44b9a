#!/usr/bin/env bash
# Table 3e CASE, UCF101, rho = 0.95: trajectory attention blocks of the sampler. 32 clips x 8 GPUs, fine-tuning 8 x 8.
# Paper, top-1/top-5: 1 81.75/95.29 (25.36 GB), 2 65.17/88.59 (32.18 GB), 3 67.35/90.20 (39.00 GB).
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
ablation 3e ucf101 "1 2 3" 1 "${1:-}" --tats_depth "${1:-}" -- "${@:2}"
