"""Runs of the programs as forks of one process that has imported everything: a process of its own, started by tests.

    python forked_runs.py SPEC.json     SPEC: {"kill": ..., see `kills`} or {"ranks": [...], see `ranks`}
    torchrun forked_runs.py ...         with FAULT in the environment: one process of a run with a fault

It never trains itself: a process with threads must not fork.
"""

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from tats.datasets.clips import PretrainClips
from tats.datasets.program import run_program
from tats.engines.core import checkpointing
from tats.engines.pretrain.reconstruction import Reconstruction
from tats.engines.run_class_finetuning import main as finetune
from tats.engines.run_mae_pretraining import main as pretrain
from tats.engines.runs import resumable
from tiny_runs import differing, final_state
from torch.distributed.elastic.multiprocessing.errors import record

FORK = multiprocessing.get_context("fork")


def program(arguments, log, environment=()):
    """Run a program as its own process would, stderr to a file."""
    torch.set_num_threads(1)
    os.environ.update(dict(environment))
    with open(log, "a") as file:
        os.dup2(file.fileno(), 2)
    run_program(record(lambda: (finetune if "--nb_classes" in arguments or "vit_tats_tiny" in arguments
                                else pretrain)(arguments)))


def start(arguments, log, fault=None, environment=(), rows=None):
    """A fork with the program, and `fault` in it. rows: file for the rows that it loads, with their keys."""
    def run():
        inject(fault or {})
        if rows:
            note_rows(rows)
        program(arguments, log, environment)

    child = FORK.Process(target=run)
    child.start()
    return child


def inject(fault):
    """{"kind": ..., "step": optimiser step, from 1}: what happens to this process, and when."""
    kind, when = fault.get("kind"), fault.get("step")
    if kind == "nan":
        real, calls = Reconstruction.errors, []

        def errors(self, prediction, target):
            calls.append(prediction.requires_grad)
            broken = prediction.requires_grad and sum(calls) == when
            return real(self, prediction, target) * (float("nan") if broken else 1)

        Reconstruction.errors = errors
    elif kind == "slow save":
        real_save = checkpointing.save_atomically

        def save_atomically(*arguments):
            time.sleep(fault["seconds"])
            real_save(*arguments)

        checkpointing.save_atomically = save_atomically
    elif kind:
        real_step = resumable.Resumable.after_step

        def after_step(run):
            if run.main.steps == when:
                happen(kind)
            if kind == "small disk" and run.main.steps == when + 4:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            real_step(run)

        resumable.Resumable.after_step = after_step


def note_rows(path):
    """A line `row key` for each clip that this process loads: of every step that it begins, without workers."""
    real = PretrainClips.__getitem__

    def get(clips, row_and_key):
        with open(path, "a") as file:
            file.write(f"{row_and_key[0]} {row_and_key[1]}\n")
        return real(clips, row_and_key)

    PretrainClips.__getitem__ = get


def happen(kind):
    """A fault of this process."""
    if kind == "raise":
        raise ValueError("this process has had enough")
    if kind == "hang":
        time.sleep(600)
    if kind == "small disk":   # no file may grow beyond this
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    else:
        os.kill(os.getpid(), getattr(signal, kind))


def ranks(specs):
    """[{"name", "world", "arguments", "fault": {"rank", ...}, "limit": seconds, "rows": file}] -> exit codes by name.

    None for a process that had not ended at its limit, or that was told to hang.
    """
    results = {}
    for spec in specs:
        folder, fault = Path(spec["folder"]), spec.get("fault", {})
        begun, children = time.time(), []
        for rank in range(spec["world"]):
            environment = {"RANK": str(rank), "WORLD_SIZE": str(spec["world"]), "LOCAL_RANK": str(rank)}
            children.append(start([*spec["arguments"], "--dist_url", f"file://{folder}/{spec['name']}.meeting"],
                                  folder / f"{spec['name']}-{rank}.err",
                                  fault if fault.get("rank") == rank else None, environment, spec.get("rows")))
        codes = []
        for rank, child in enumerate(children):
            hangs = fault.get("kind") == "hang" and fault["rank"] == rank
            child.join(0 if hangs else max(0, begun + spec["limit"] - time.time()))
            codes.append(child.exitcode)
            if child.exitcode is None:
                child.kill()
        results[spec["name"]] = {"codes": codes}
    return results


def stopped_while_saving(pid, out):
    """Stop a process that writes a checkpoint; True if it has stopped before it was done, else it goes on."""
    if not list(out.glob("*.writing")):
        return False
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    if list(out.glob("*.writing")):
        return True
    os.kill(pid, signal.SIGCONT)
    return False


def kills(folder, runs, count, seed):
    """Kill each of `count` runs at a random moment, every other one while it writes a checkpoint, and let it go on.

    runs: [(name, arguments without --output_dir)].
    """
    dice, results, whole = random.Random(seed), [], {}
    for name, arguments in runs:
        begun = time.time()
        child = start([*arguments, "--output_dir", str(folder / name)], folder / f"{name}.err")
        child.join()
        whole[name] = time.time() - begun, final_state(folder / name)
    for number in range(10 * count):   # a run that ends before its moment is none of them
        if len(results) == count:
            break
        name, arguments = runs[number % len(runs)]
        out = folder / f"killed-{number}"
        child = start([*arguments, "--output_dir", str(out)], folder / f"killed-{number}.err")
        begun, moment = time.time(), dice.uniform(0, whole[name][0])
        saving = len(results) % 2 == 1
        while child.is_alive() and time.time() - begun < moment:
            time.sleep(0.001)
        while saving and child.is_alive() and not stopped_while_saving(child.pid, out):
            pass
        child.kill()
        child.join()
        if child.exitcode != -signal.SIGKILL:
            continue
        left = [path.name for path in out.glob("*.writing")]
        found = [path.name for _, path in checkpointing.numbered_checkpoints(out)] if out.is_dir() else []
        again = start([*arguments, "--output_dir", str(out)], folder / f"killed-{number}.err")
        again.join()
        log = (folder / f"killed-{number}.err").read_text()
        results.append({"run": name, "moment": round(moment, 3),
                        "left_unfinished": left, "newest": found[0] if found else None, "code": again.exitcode,
                        "resumed": "resumed from" in log, "warned": "falling back" in log,
                        "differs": differing(final_state(out), whole[name][1])})
        shutil.rmtree(out)
    return results


if __name__ == "__main__":
    if "FAULT" in os.environ:
        fault = json.loads(os.environ["FAULT"])
        inject(fault if fault["rank"] == int(os.environ["RANK"]) else {})
        run_program(record(lambda: pretrain(sys.argv[1:])))
    else:
        spec_file = Path(sys.argv[1])
        spec = json.loads(spec_file.read_text())
        found = ranks(spec["ranks"]) if "ranks" in spec else kills(spec_file.parent, **spec["kills"])
        spec_file.with_suffix(".out").write_text(json.dumps(found))
