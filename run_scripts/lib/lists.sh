# shellcheck shell=bash disable=SC2154  # part of _lib.sh, which sets what is read here
# The lists of a data set, and whether they are those of the paper.

# Sets $data to the folder of lists of data set $1, and checks that it has the lists $2...
find_lists() {
    other_lists=()
    local name=$1 list subset=
    case $1 in k400 | ssv2) subset=" --fraction val" ;; esac   # Sec. 4: as many videos as for validation, about 15 %
    shift
    data=${DATA_ROOT:-}/$name
    if on SMOKE; then
        data=$OUTPUT_ROOT/moving_shapes
        if ! on DRY_RUN && [ ! -f "$data/test.csv" ]; then
            "$PYTHON" -m tats.datasets.moving_shapes --out "$data" --train 64 --val 16 --test 16
        fi
        return
    fi
    if on DRY_RUN; then return; fi
    [ -n "${DATA_ROOT:-}" ] || die "set DATA_ROOT to the folder that holds $name/$1.csv (tats.datasets.build_lists makes it)"
    for list; do
        [ -f "$data/$list.csv" ] || die "no list $data/$list.csv: set DATA_ROOT, or make it with" \
            "$(printf %q "$PYTHON") -m tats.datasets.build_lists ${name%full} --root VIDEOS" \
            "--out $(printf %q "$data")$subset"
        check_size "$name" "$list"
    done
}

# Sets $unlisted to those of the data sets $2... that do not have the lists "$1" as the paper has them, and says so once
# for each; ends where none has.
check_lists() {
    local dataset lists said seen=' ' whole=
    read -ra lists <<<"$1"
    shift
    unlisted=()
    if on SMOKE || on DRY_RUN; then return; fi
    for dataset; do
        if [[ $seen = *" $dataset "* ]]; then continue; fi
        seen+="$dataset "
        if said=$(find_lists "$dataset" "${lists[@]}" 2>&1); then whole=1; continue; fi
        unlisted+=("$dataset")
        echo "$said" >&2
        [ -n "${DATA_ROOT:-}" ] || break   # the same for all
    done
    [ -n "$whole" ] || exit 2
}

# Whether data set $1 is one of them.
is_unlisted() { [[ " ${unlisted[*]-} " = *" $1 "* ]]; }

# Refuses the list $2 of data set $1 where it is not as long as the paper's: a run of weeks on another training set
# would stand in the table as the row. With ANY_SIZE=1 it sets $other_lists, which marks the run for the table.
check_size() {
    local rows dataset list low high what sizes=''
    rows=$(grep -c '[^[:space:]]' "$data/$2.csv" || true)
    while read -r dataset list low high what; do
        if [ "$dataset:$list" != "$1:$2" ]; then continue; fi
        if [ "$rows" -ge "$low" ] && [ "$rows" -le "$high" ]; then
            echo "$data/$2.csv: $rows videos, $what" >&2
            return
        fi
        sizes+="${sizes:+, or }$low to $high ($what)"
    done <"$settings/list_sizes.txt"
    if [ -n "$sizes" ] && on ANY_SIZE; then other_lists=("@$settings/any_size.args"); return; fi
    [ -z "$sizes" ] || die "$data/$2.csv has $rows rows, this row of the paper is on $sizes. Make the list again" \
        "(docs/data.md), or set ANY_SIZE=1"
}
