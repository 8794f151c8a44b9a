#!/usr/bin/env bash
# Table 2: fine-tune Table 1's Kinetics-400 and SSv2 encoders on other data sets (run table1.sh k400 ssv2 first).
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
run_table 2 transfer "$(echo {k400_to_ucf101,k400_to_hmdb51,k400_to_ssv2,ssv2_to_ucf101,ssv2_to_hmdb51}_r{085,090,095})" "$@"
