"""Programs as forks of one process that has imported everything: how long each takes to end, how, and what is left.

    python endings.py SPEC.json     [{"name", "program", "arguments", "fault", "world", "after"}, ...]

A fork leaves through the end of this file, as the program of a command line does: threads, exit functions and all.
Each case is a session of its own, so that nothing it started can hide.
"""

import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import ending_faults
from processes import is_alive
from tats.datasets.program import run_program

LIMIT = 150        # seconds: what has not begun or ended by then is killed
LEFT_FOR = 5       # seconds that orphans have to go
PROGRAMS = {
    "pretrain": "engines.run_mae_pretraining", "finetune": "engines.run_class_finetuning",
    "extract": "engines.extract_features", "check": "datasets.check_list", "prepare": "datasets.prepare_videos",
    "masks": "engines.measure_masks", "flow": "engines.measure_flow", "draw": "engines.run_mask_visualization",
    "compare": "engines.compare_masks.__main__",
}


def run(case, rank):
    """What the fork does; it ends with the file."""
    import torch

    torch.set_num_threads(1)
    folder = Path(case["folder"])
    log = os.open(folder / f"{case['name']}-{rank}.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 2)
    os.dup2(log, 1)
    moment = str(folder / f"{case['name']}.moment")
    here = case["world"] == 1 or rank == 1
    if case["world"] > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(case["world"]))
    faults = {"loop": ending_faults.fails(moment, RuntimeError("a defect of the loop")),
              "input": ending_faults.fails(moment, ValueError("bad input")),
              "memory": ending_faults.runs_out_of_memory(moment),
              "int_main": ending_faults.goes_on_slowly(moment), "int_group": ending_faults.goes_on_slowly(moment)}
    if case["fault"] == "worker":
        ending_faults.inject_in_workers()
    elif case["fault"] in faults and here:
        ending_faults.inject_in_loop(faults[case["fault"]], case["after"])
    main = importlib.import_module(f"tats.{PROGRAMS[case['program']]}").main
    run_program(lambda: main(case["arguments"]))


def begin(case):
    """Process numbers of the case's ranks; 0 in a rank itself."""
    pids = []
    for rank in range(case["world"]):
        pid = os.fork()
        if pid == 0:
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            return rank, 0
        pids.append(pid)
    return None, pids


def sessions(pids):
    """Living processes of these sessions, with their command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and is_alive(folder.name):
            try:
                session = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[3])
                if session in pids:
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().decode(errors="replace")[:80]
            except (OSError, ValueError):
                pass
    return found


def follow(case, pids):
    """See a case to its end: seconds from the fault, or from the start, to the end of the last rank; codes; orphans."""
    moment, begun = Path(case["folder"]) / f"{case['name']}.moment", time.time()
    codes, ends, told = {}, {}, not case["fault"].startswith("int_")
    seen = set()
    while len(codes) < len(pids) and time.time() - begun < LIMIT:
        seen |= sessions(pids).keys() - set(pids)
        if not told and moment.exists():
            told = True
            time.sleep(.2)
            if case["fault"] == "int_main":
                os.kill(pids[0], signal.SIGINT)
            else:
                os.killpg(pids[0], signal.SIGINT)
        for pid in pids:
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid], ends[pid] = os.waitstatus_to_exitcode(status), time.time()
        time.sleep(.05)
    ended = time.time()
    while sessions(pids) and time.time() - ended < LEFT_FOR:
        time.sleep(.05)
    orphans = sessions(pids)
    for pid in orphans:
        os.kill(pid, signal.SIGKILL)
    since = moment.stat().st_mtime if moment.exists() else begun
    return {"codes": [codes.get(pid) for pid in pids], "seconds": round(ended - since, 1), "children": len(seen),
            "ranks": [round(ends.get(pid, ended) - since, 1) for pid in pids], "orphans": list(orphans.values())}


def serve(spec_file):
    """(case, rank) in a fork; None, with the results written, in the process that started them all."""
    results = {}
    for case in json.loads(spec_file.read_text()):
        rank, pids = begin(case)
        if not pids:
            return case, rank
        results[case["name"]] = follow(case, pids)
        spec_file.with_suffix(".out").write_text(json.dumps(results))
    return None


if __name__ == "__main__":
    for program in PROGRAMS.values():
        importlib.import_module(f"tats.{program}")
    mine = serve(Path(sys.argv[1]))
    if mine is not None:
        run(*mine)
