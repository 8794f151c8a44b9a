#!/usr/bin/env bash
# Table 9, the whole of SSv2, rho = 0.95: 8 clips x 8 GPUs, lr 1e-3 x 64/256. Paper, top-1/top-5: tats 65.82/88.50, adamae 63.06/85.89, videomae 59.38/84.17.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
finetune ssv2full 0.95 "$@"
