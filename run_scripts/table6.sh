#!/usr/bin/env bash
# Table 6: c1, c2, c3 on UCF101, pre-training only. Six runs are its nine lines: ablation_6.sh names the twins.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
METHODS=tats run_table 6 ablation "$(echo 6_1e-4,1e-3,1e-{3,4} 6_1e-4,1e-4,1e-{3,4} 6_1e-3,1e-{4,3},1e-4)" "$@"
