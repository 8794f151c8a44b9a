# shellcheck shell=bash
# Signals to a script reach the program that it runs; the script waits until that has saved and ended.

# torchrun gives its trainers this long to save before it kills them (seconds), and hands USR1 on as well.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-280}
export TORCHELASTIC_SIGNALS_TO_HANDLE=${TORCHELASTIC_SIGNALS_TO_HANDLE:-SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1}

# supervise COMMAND...: run it, hand on TERM, USR1 and INT, return its exit status. $signalled: the last signal, or empty.
supervise() {
    local child status name came
    signalled=
    set -m   # a process group of its own; else bash starts it with INT ignored
    "$@" &
    child=$!
    set +m
    for name in TERM USR1 INT; do
        # shellcheck disable=SC2064  # the child's number of now
        trap "came=1 signalled=$name; kill -$name $child 2>/dev/null || true" "$name"
    done
    while :; do   # a signal ends `wait`, not the child
        came='' status=0
        wait "$child" || status=$?
        [ -n "$came" ] || break
    done
    trap - TERM USR1 INT
    return "$status"
}
