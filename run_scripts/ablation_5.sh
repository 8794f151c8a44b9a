#!/usr/bin/env bash
# Table 5 CASE [hmdb51], rho = 0.95: CASE is m_o,k. Pre-training only, 32 clips x 8 GPUs, lr 1.5e-4 x 256/256.
# Paper, reconstruction error on UCF101, HMDB51: 0,1 .5211 .8051; 1,1 .5205 .8195; 5,1 .5304 .8535; 10,1 .5135 .8278;
# 25,1 .5269 .8987; 100,1 .6662 .9291; 50,5 .7735 .9772; 50,10 .8149 .9776; 50,25 .9201 -.
# HMDB51 has 13 steps an epoch: k = 25 acts as 13 there, but with --no_flush_buffer. hmdb51_CASE: the same as CASE hmdb51.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
case=${1:-} dataset=ucf101
if [ "${2:-}" = hmdb51 ]; then dataset=hmdb51; set -- "$1" "${@:3}"; fi
if [[ $case = hmdb51_* ]]; then dataset=hmdb51 case=${case#hmdb51_}; fi
ablation 5 "$dataset" "0,1 1,1 5,1 10,1 25,1 100,1 50,5 50,10 50,25" 10,1 "$case" \
    --mae_only_epochs "${case%,*}" --update_every "${case#*,}" -- "${@:2}"
