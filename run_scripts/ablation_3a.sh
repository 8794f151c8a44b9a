#!/usr/bin/env bash
# Table 3a CASE, UCF101, rho = 0.95: attention of the sampler. 32 clips x 8 GPUs, fine-tuning 8 x 8.
# Paper, top-1/top-5: mha 81.59/95.29 (25.37 GB), ta 81.75/95.42 (25.36 GB).
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
ablation 3a ucf101 "mha ta" ta "${1:-}" --tats_attention mha -- "${@:2}"
