#!/usr/bin/env bash
# Table 3b CASE, UCF101, rho = 0.95: decoder depth. 32 clips x 8 GPUs, fine-tuning 8 x 8.
# Paper, top-1/top-5: 1 81.46/95.07 (16.54 GB), 2 80.83/95.02 (19.48 GB), 4 81.75/95.29 (25.36 GB), 8 79.10/94.68 (37.13 GB).
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
ablation 3b ucf101 "1 2 4 8" 4 "${1:-}" --decoder_depth "${1:-}" -- "${@:2}"
