# shellcheck shell=bash disable=SC2154  # part of _lib.sh, which sets what is read here
# All rows of a table.

# run_table TABLE "KINDS" "ROWS" [PATTERN...] [ARGUMENTS...]: every row whose name holds a PATTERN, for all METHODS and
# SEEDS, each as KIND_ROW.sh; what is finished is passed over, a failed row does not stop the others. LIST_ROWS=1 names
# them only.
run_table() {
    local table=$1 kinds=$2 rows=$3 patterns=() failed=() todo=() datasets=() lists="train val test" row method kind status words one
    shift 3
    while [ $# -gt 0 ] && [[ $1 != -* ]]; do patterns+=("$1"); shift; done
    for row in $rows; do
        matches "$row" ${patterns[@]+"${patterns[@]}"} || continue
        for method in ${METHODS:-${METHOD:-videomae adamae tats}}; do
            for one in ${SEEDS:-${SEED:-.}}; do todo+=("$method $row ${one#.}"); done
        done
    done
    [ ${#todo[@]} -gt 0 ] || die "Table $table has no row like '${patterns[*]}'; its rows: $rows"
    for words in "${todo[@]}"; do   # a misspelt setting fails every row: say so once, before the first
        read -r method row one <<<"$words"
        METHOD=$method SEED=$one check_arguments "$@" || exit 2
    done
    if on LIST_ROWS; then printf '%s\n' "${todo[@]% }"; return; fi
    unset CHECKPOINT
    read_recipe "$@"
    defaults
    need_deepspeed
    for words in "${todo[@]}"; do
        read -r _ row _ <<<"$words"
        datasets+=("$(data_set_of "$row")")
        case $row in [56]_*) lists=train ;; esac   # the tables without fine-tuning
    done
    check_lists "$lists" "${datasets[@]}"
    for words in "${todo[@]}"; do
        read -r method row one <<<"$words"
        for kind in $kinds; do
            status=0
            if is_unlisted "$(data_set_of "$row")"; then
                failed+=("METHOD=$method${one:+ SEED=$one} ${kind}_$row")
                break
            fi
            SEED=$one supervise run_row "$method" "$kind" "$row" "$@" || status=$?
            case $signalled:$status in   # Ctrl-C and SIGTERM mean the whole table
                [A-Z]*:* | *:130 | *:138 | *:143) exit $((status ? status : 143)) ;;
            esac
            [ "$status" = 0 ] || { failed+=("METHOD=$method${one:+ SEED=$one} ${kind}_$row"); break; }
        done
    done
    on DRY_RUN || ! on SMOKE || echo "SMOKE=1, a tiny model on moving shapes: our numbers below mean nothing"
    on DRY_RUN || [[ " $* " = *" --explain"* ]] || "$PYTHON" -m tats.engines.tables "$OUTPUT_ROOT" --tables "$table" --recipe "${TATS_RECIPE:-paper}"
    [ ${#failed[@]} = 0 ] || { echo "error: ${#failed[@]} of ${#todo[@]} rows failed: ${failed[*]}" >&2; exit 1; }
}

# The data set whose lists a row of a table needs.
data_set_of() {
    local name=${1#*_to_}
    case $name in
        5_hmdb51_*) echo hmdb51 ;;
        [0-9]*) echo ucf101 ;;
        *) echo "${name%_r*}" ;;
    esac
}

# Sets TATS_RECIPE from --tats_recipe, for the table that is printed at the end.
read_recipe() {
    local word before=''
    for word; do
        if [ "$before" = --tats_recipe ]; then TATS_RECIPE=$word; fi
        if [[ $word = --tats_recipe=* ]]; then TATS_RECIPE=${word#*=}; fi
        before=$word
    done
}

matches() { # ROW PATTERN...
    local row=$1 pattern
    shift
    [ $# -gt 0 ] || return 0
    for pattern; do [[ $row != *"$pattern"* ]] || return 0; done
    return 1
}

run_row() { # METHOD KIND ROW ARGUMENTS...
    local method=$1 words=("$2_$3.sh")
    if [ "$2" = ablation ]; then words=("ablation_${3%%_*}.sh" "${3#*_}"); fi
    export SKIP_FINISHED=1 OF_A_TABLE=1 METHOD=$method
    exec "$scripts/${words[0]}" "${words[@]:1}" "${@:4}"
}
