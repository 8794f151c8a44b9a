# shellcheck shell=bash
# Arguments that change what is computed give a run a folder of its own. Which do, settings/identity.txt says, made from
# the declarations of the flags (tests/test_variants.py holds the two together).

# variant_of PROGRAM ROW'S FLAGS... -- ARGUMENTS...: prints __FLAG=VALUE for each argument that differs from the row
variant_of() { [ "${!#}" = -- ] || compare_arguments variant "$@"; }   # none without arguments

# known_arguments PROGRAM ARGUMENTS...: prints those that PROGRAM knows, and those that neither program does, one a line
known_arguments() { compare_arguments known "$1" -- "${@:2}"; }

compare_arguments() {
    local what=$1 program=$2 word
    shift 2
    for word; do
        if [[ $word = @* ]]; then sed 's/#.*//' "${word#@}" | tr -s ' ' '\n'; else printf '%s\n' "$word"; fi
    done | LC_ALL=C awk -v program="$program" -v what="$what" -v table="$settings/identity.txt" '
        BEGIN {
            while ((getline line < table) > 0) {
                split(line, cell, "\t")
                if (line ~ /^#/ || line == "") continue
                elsewhere[cell[2]] = 1
                if (cell[1] != program) continue
                name[cell[2]] = cell[3]; kind[cell[3]] = cell[4]; value["row", cell[3]] = cell[5]
                if (cell[2] == cell[3]) order[++count] = cell[3]
            }
            side = "row"
        }
        function plain(text) {
            if (text ~ /^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$/) return sprintf("%.12g", text + 0)
            if (tolower(text) ~ /^(true|yes)$/) return "true"
            if (tolower(text) ~ /^(false|no)$/) return "false"
            return text
        }
        $0 == "--" && side == "row" { side = "own"; next }
        /^--[A-Za-z]/ {
            flag = substr($0, 3); given = ""
            if (i = index(flag, "=")) { given = substr(flag, i + 1); flag = substr(flag, 1, i - 1) }
            gsub("-", "_", flag)
            negative = !(flag in name) && substr(flag, 1, 3) == "no_" && (substr(flag, 4) in name)
            if (negative) flag = substr(flag, 4)
            known = flag in name || !(flag in elsewhere)
            if (side == "own" && what == "known" && known) print
            flag = flag in name ? name[flag] : ""
            if (flag != "") { value[side, flag] = negative ? "false" : i ? plain(given) : "true"; first = !negative && !i }
            next
        }
        $0 != "" || side == "own" {
            if (side == "own" && what == "known" && known) print
            if (flag == "") next
            value[side, flag] = first ? plain($0) : value[side, flag] "," plain($0)
            first = 0
        }
        END {
            if (what == "known") exit
            for (i = 1; i <= count; i++) {
                flag = order[i]
                if (!(("own", flag) in value) || kind[flag] == "free" || kind[flag] == "setup") continue
                text = value["own", flag]
                if (text == value["row", flag]) continue
                if (kind[flag] == "content" || kind[flag] == "source") sub(".*/", "", text)
                gsub(/[^A-Za-z0-9.,_+-]/, "-", text)
                printf "__%s=%s", flag, text
            }
        }'
}
