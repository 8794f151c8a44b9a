#!/usr/bin/env bash
# Table 1: pre-train and fine-tune every row for every method, then print the table. table1.sh ucf101_r095: that row only.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
run_table 1 "pretrain finetune" "$(echo {ucf101,hmdb51,k400,ssv2}_r{085,090,095})" "$@"
