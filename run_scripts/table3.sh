#!/usr/bin/env bash
# Table 3: the ablations on UCF101 at rho = 0.95. Its usual cases, and 3c, are Table 1's runs and are shared with it.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
METHODS=tats run_table 3 ablation "$(echo 3a_{mha,ta} 3b_{1,2,4,8} 3d_{l1,mse}_{norm,raw} 3e_{1,2,3})" "$@"
