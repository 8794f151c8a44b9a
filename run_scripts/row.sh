#!/usr/bin/env bash
# One row of Table 1 from its lists to its line in the table and its figure, all columns: row.sh ucf101_r095 [ARGUMENTS].
# Columns: METHODS, as table1.sh's; here by default VideoMAE, AdaMAE, TATS, random masks, and the two baselines with their
# projects' own scripts. The figure is that of the data set and ratio (4 to 15). SMOKE=1 tries it all in minutes.
source "$(dirname "${BASH_SOURCE[0]}")/_lib.sh"
row=${1:-} number=4
for one in {k400,ssv2,ucf101,hmdb51}_r{095,090,085}; do
    [ "$one" != "$row" ] || break
    number=$((number + 1))
done
[ "$number" -le 15 ] || die "row.sh takes a row of Table 1, e.g. ucf101_r095; got '$row'"
export SEEDS=${SEEDS:-${SEED:-}} METHODS=${METHODS:-videomae adamae tats random videomae_published adamae_published}
status=0
supervise "$scripts/table1.sh" "$row" "${@:2}" || status=$?
case $signalled:$status in
    [A-Z]*:* | *:2 | *:130 | *:138 | *:143) exit $((status ? status : 143)) ;;
esac
SEED=${SEEDS%% *} supervise "$scripts/figures.sh" "$number" "${@:2}" || status=$?
exit "$status"
