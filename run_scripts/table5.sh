#!/usr/bin/env bash
# Table 5: m_o and k on UCF101 and HMDB51, pre-training only; "10,1" is Table 1's run. table5.sh hmdb51: that half.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
METHODS=tats run_table 5 ablation "$(echo 5_{0,1,5,10,25,100},1 5_50,{5,10,25} 5_hmdb51_{0,1,5,10,25,100},1 5_hmdb51_50,{5,10})" "$@"
