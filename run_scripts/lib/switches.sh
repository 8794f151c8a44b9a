# shellcheck shell=bash
# Variables that are on or off: 1, true, yes, on; 0, false, no, off, and empty as if not set. Any other word is refused.

for one in SMOKE DRY_RUN ANY_SIZE DEEPSPEED SKIP_FINISHED OF_A_TABLE LIST_ROWS EXPLAIN; do
    case ${!one:-} in
        "") [ -z "${!one+set}" ] || unset "$one" ;;
        1 | [Tt]rue | TRUE | [Yy]es | YES | [Oo]n | ON) printf -v "$one" 1 ;;
        0 | [Ff]alse | FALSE | [Nn]o | NO | [Oo]ff | OFF) printf -v "$one" 0 ;;
        *) echo "error: $one is on (1, true, yes) or off (0, false, no), got '${!one}'" >&2; exit 2 ;;
    esac
done
unset one

on() { [ "${!1:-0}" != 0 ]; }
