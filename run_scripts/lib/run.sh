# shellcheck shell=bash disable=SC2154  # part of _lib.sh, which sets what is read here
# One program: its launcher, whether its run is finished already, and what its end means.

# DeepSpeed is asked for before anything is trained: fine-tuning would miss it days later.
need_deepspeed() {
    if on DRY_RUN || [ "$GPUS" = 0 ] || [ "${DEEPSPEED:-1}" = 0 ]; then return; fi
    "$PYTHON" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("deepspeed") is None)' 2>/dev/null ||
        die "fine-tuning uses DeepSpeed, which is not installed for $PYTHON: run $(printf %q "$scripts/setup_env.sh") deepspeed, or set" \
            "DEEPSPEED=0"
}

# Run `-m $2...` with output folder $1 and leave a note there when it has ended well.
run() {
    local output=$1 note command=("$PYTHON") meet=() word before='' status=0 begun
    shift
    if [ "$GPUS" = 0 ]; then set -- "$@" --device cpu; fi
    set -- "$@" ${other_lists[@]+"${other_lists[@]}"} --output_dir "$output" ${rest[@]+"${rest[@]}"}
    if [ "$NNODES" -gt 1 ] && [ -n "${SRUN:-}" ]; then   # inside slurm.sh: one srun starts all nodes
        command=("$SRUN" "$PYTHON")
        meet=(--rdzv_backend=c10d --rdzv_endpoint="$MASTER_ADDR:${MASTER_PORT:-29500}" --rdzv_id="${SLURM_JOB_ID:-0}")
    elif [ "$NNODES" -gt 1 ]; then
        meet=(--node_rank="$NODE_RANK" --master_addr="${MASTER_ADDR:-}" --master_port="${MASTER_PORT:-29500}")
    elif [ "$GPUS" -gt 1 ]; then
        meet=(--standalone)
    fi
    if [ ${#meet[@]} -gt 0 ]; then
        command+=(-m torch.distributed.run --nnodes="$NNODES" --nproc_per_node="$GPUS" "${meet[@]}")
    fi
    note=$(printf '%q ' "$@")
    if on EXPLAIN; then "$PYTHON" -m "$@"; return; fi
    if on DRY_RUN; then printf '%q ' "${command[@]}" -m "$@"; echo; return; fi
    for word; do   # the last --output_dir counts
        if [ "$before" = --output_dir ]; then output=$word; elif [[ $word = --output_dir=* ]]; then output=${word#*=}; fi
        before=$word
    done
    if on SKIP_FINISHED && [ -f "$output/finished" ] && is_finished "$@"; then
        echo "finished before: $output" >&2
        return
    fi
    rm -f "$output/stopped"
    begun=$(cksum "$output/settings.json" 2>/dev/null || true)
    supervise "${command[@]}" -m "$@" || status=$?
    if [ -f "$output/stopped" ]; then   # saved and ended by a signal: the program's exit code is 0, torchrun's 1
        rm -f "$output/finished"
        case " $* " in
            *" --auto_resume false "* | *" --auto_resume=false "* | *" --no_auto_resume "*) before=" without --auto_resume false" ;;
            *) before='' ;;
        esac
        echo "stopped: $output; the same command$before goes on" >&2
        exit 143
    fi
    if [ "$status" != 0 ]; then
        # A run that is refused has not touched the folder: what is finished there stays so.
        [ -n "$begun" ] && [ "$begun" = "$(cksum "$output/settings.json" 2>/dev/null)" ] || rm -f "$output/finished"
        return "$status"
    fi
    if [ "$NODE_RANK" = 0 ]; then echo "$note" >"$output/finished"; fi
}

# Whether the folder holds this very run: the same flags, lists and first weights.
is_finished() {
    "$PYTHON" -c 'import sys; from tats.engines.runs.finished import main; sys.exit(main(sys.argv[1:]))' \
        $((NNODES * (GPUS > 0 ? GPUS : 1))) "$@"
}

# Micro-batches a step, so that 1, 2 or 4 GPUs train on the batch of the paper's 8; other numbers come near it, and say so.
accumulation() {
    local processes=$((NNODES * (GPUS > 0 ? GPUS : 1)))
    if on SMOKE; then echo 1; return; fi
    [ $((paper_gpus % processes)) = 0 ] ||
        echo "note: $processes GPUs cannot make the batch of $paper_gpus; the learning rate is scaled to what they do" >&2
    echo $((processes < paper_gpus ? (paper_gpus + processes / 2) / processes : 1))
}
