#!/usr/bin/env bash
# Submit any script of this folder with sbatch; a table as an array, one task for each row and method.
#   run_scripts/slurm.sh pretrain_ucf101_r095.sh --seed 1        NNODES=4 run_scripts/slurm.sh pretrain_k400_r095.sh
#   MAX_TASKS=6 run_scripts/slurm.sh table1.sh ucf101
# GPUS (8) a node, NNODES (1), CPUS (12: 10 loaders, 2 more) a GPU, MAX_TASKS at a time. Partition, account, time limit: sbatch's own variables
# (SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT). Five minutes before the time limit the run saves and ends; then,
# as when preempted, the job is queued again and goes on from its newest checkpoint. DRY_RUN=1 prints the sbatch command.
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export GPUS=${GPUS:-8} NNODES=${NNODES:-1}
source "$scripts/lib/switches.sh"
source "$scripts/lib/supervise.sh"

inside() { # SCRIPT ARGUMENTS...: in the job, on its first node
    local script=$1 method row seed status=0
    shift
    MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000)) SRUN=srun
    # From Slurm 22.05 on srun does not inherit the job's --cpus-per-task.
    export SRUN_CPUS_PER_TASK=${SRUN_CPUS_PER_TASK:-${SLURM_CPUS_PER_TASK:-$((GPUS * ${CPUS:-12}))}}
    if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
        read -r method row seed <<<"$(LIST_ROWS=1 "$scripts/$script" "$@" | sed -n "$((SLURM_ARRAY_TASK_ID + 1))p")"
        while [ $# -gt 0 ] && [[ $1 != -* ]]; do shift; done
        export METHODS=$method SEEDS=$seed
        set -- "$row" "$@"
    fi
    supervise "$scripts/$script" "$@" || status=$?
    # Only now that all is saved and ended: the job starts again at once where a node is free.
    if [ "$signalled" = USR1 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
    exit "$status"
}

submit() { # SCRIPT ARGUMENTS...
    local script=${1##*/} job rows=0 command
    shift
    [ -x "$scripts/$script" ] || { echo "error: no script $scripts/$script" >&2; exit 2; }
    command=(sbatch --job-name="${script%.sh}" --nodes="$NNODES" --ntasks-per-node=1 --gpus-per-node="$GPUS"
        --cpus-per-task=$((GPUS * ${CPUS:-12})) --requeue --open-mode=append --signal=B:USR1@300)
    if [[ $script = table*.sh ]]; then
        rows=$(LIST_ROWS=1 "$scripts/$script" "$@" | wc -l)
        command+=(--array="0-$((rows - 1))${MAX_TASKS:+%$MAX_TASKS}")
    fi
    # exec: the signal is for the shell that traps it
    job=$(printf '%q ' exec bash "$scripts/slurm.sh" --inside "$script" "$@")
    command+=(--wrap "$job")
    if on DRY_RUN; then printf '%q ' "${command[@]}"; echo; else "${command[@]}"; fi
}

case ${1:-} in
    --inside) inside "${@:2}" ;;
    "" | -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ -n "${1:-}" ] || exit 2 ;;
    *) submit "$@" ;;
esac
