#!/usr/bin/env bash
# Table 9: pre-train and fine-tune on the whole of SSv2, for every method, then print the table.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
run_table 9 "pretrain finetune" ssv2full_r095 "$@"
