# shellcheck shell=bash
# usage "$@": where -h or --help is among the arguments, print the head of the script that was called, and of the file
# $more_usage behind it, and end with 0.
usage() {
    local word
    for word; do
        case $word in
            -h | --help)
                sed -s -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0" ${more_usage:+"$more_usage"}
                exit 0
                ;;
        esac
    done
}
