"""Every error ends the program, in time, with its exit code, and nothing that it started lives on."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tats.models import create_model
from tiny_runs import finetuning_flags, pretraining_flags

HERE = Path(__file__).parent
SECONDS = 60   # generous: a quiet machine needs a third of it
pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(5400),   # of all pairs, with --long
              pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks for orphans in Linux's /proc")]

CODES = {"missing": 2, "videos": 2, "input": 2, "worker": 1, "loop": 1, "memory": 1, "int_main": 130, "int_group": 130}
LOADERS = ("pretrain", "finetune", "extract")
POOLS = ("check", "prepare")
ALONE = ("masks", "flow", "draw")   # no processes but the decoder's
# (program, fault, workers, ranks)
ALL = [*itertools.product(LOADERS, CODES, (0, 2, 10), (1,)),
       *itertools.product(("pretrain", "finetune"), ("input", "loop"), (0, 2, 10), (2,)),
       *itertools.product(POOLS, ("missing", "worker", "loop", "int_main", "int_group"), (0, 2, 10), (1,)),
       *itertools.product(ALONE, ("missing", "loop", "memory", "int_main"), (0,), (1,)),
       ("compare", "missing", 0, 1), ("compare", "int_main", 2, 1), ("compare", "int_group", 2, 1)]
# The pairs that once hung; --long tries all.
SOME = [("pretrain", "loop", 2, 2), ("pretrain", "worker", 10, 1), ("finetune", "videos", 2, 1),
        ("finetune", "input", 0, 2),
        ("finetune", "int_group", 2, 1), ("extract", "memory", 2, 1), ("check", "int_main", 2, 1)]


def name_of(case):
    program, fault, workers, ranks = case
    return f"{program}-{fault}-{workers}" + ("-of-2" if ranks > 1 else "")


def cases(config):
    return ALL if config.getoption("--long") else SOME


def pytest_generate_tests(metafunc):
    if "case" in metafunc.fixturenames:
        found = [case for case in cases(metafunc.config) if not (case[1] == "videos" and case[0] == "extract")]
        metafunc.parametrize("case", found, ids=name_of)


@pytest.fixture(scope="module")
def endings(shapes, tmp_path_factory, request):
    """(folder, what tests/endings.py found of each case)."""
    from tats.engines.run_mae_pretraining import main as pretrain

    folder = tmp_path_factory.mktemp("endings")
    chosen = [item.callspec.params["case"] for item in request.session.items if "case" in item.fixturenames
              and item.path == Path(__file__)]   # those of -k
    if {case[0] for case in chosen} & set(ALONE):   # they want a checkpoint with its policy
        pretrain(pretraining_flags(shapes, folder / "mae", "--epochs", "1", "--mask_type", "tats"))
    torch.save({"model": create_model("vit_tats_tiny", num_classes=8).state_dict(),
                "config": {"name": "vit_tats_tiny", "kwargs": {"num_classes": 8}}}, folder / "classifier.pth")
    gone = folder / "gone"
    gone.mkdir()
    for split in ("train", "val", "test"):
        (gone / f"{split}.csv").write_text("".join(f"/no/such/{row}.mp4 {row % 8}\n" for row in range(24)))
    specs = [spec(case, folder, shapes) for case in chosen]
    (folder / "spec.json").write_text(json.dumps(specs))
    done = subprocess.run([sys.executable, str(HERE / "endings.py"), str(folder / "spec.json")],
                          env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, json.loads((folder / "spec.out").read_text())


def spec(case, folder, shapes):
    """What endings.py needs to know of a case."""
    program, fault, workers, ranks = case
    name, out = name_of(case), folder / name_of(case)
    data = {"missing": folder / "none", "videos": folder / "gone"}.get(fault, shapes)
    mae, classifier = folder / "mae" / "checkpoint-0.pth", folder / "classifier.pth"
    arguments = {
        "pretrain": pretraining_flags(data, out, "--epochs", "9", "--mask_type", "tats", "--mae_only_epochs", "0"),
        "finetune": finetuning_flags(data, out, "--epochs", "9"),
        "extract": ["--checkpoint", str(classifier), "--list", str(data / "train.csv"), "--out", str(out / "a.npz"),
                    "--batch_size", "2", "--device", "cpu", "--data_set", "moving-shapes"],
        "check": [str(data / "train.csv"), "--out", str(out)],
        "prepare": [str(data / "train.csv"), "--out", str(out), "--short_side", "32"],
        "masks": ["--data", str(data), "--checkpoint", str(mae)],
        "flow": ["--list", str(data / "train.csv"), "--checkpoint", str(mae), "--flow_size", "24", "--draws", "99"],
        "draw": ["--checkpoint", str(mae), "--video", str(data / "train" / "000000.mp4"), "--out", str(out)],
        "compare": ["--data", str(data), "--out", str(out), "--ratios", ".9", "--jobs", str(workers), "--methods",
                    "random", "--seeds", "0", "--pretrain", str(folder / "spec.json"), "--finetune",
                    str(folder / "spec.json")],   # never read
    }[program]
    if program in (*LOADERS, *POOLS):
        arguments += ["--num_workers", str(workers)]
    if ranks > 1:
        arguments += ["--dist_url", f"file://{folder}/{name}.meeting"]
    after = {"check": 3, "prepare": 3, "draw": 1, "compare": 1}.get(program, 40)
    return {"name": name, "program": program, "arguments": arguments, "fault": fault, "world": ranks, "after": after,
            "folder": str(folder)}


def test_it_ends(case, endings, fault):
    folder, found = endings
    program, kind, workers, ranks = case
    result = found[name_of(case)]
    said = [(folder / f"{name_of(case)}-{rank}.err").read_text() for rank in range(ranks)]
    assert result["orphans"] == [] and result["seconds"] < SECONDS, (result, said)
    assert result["codes"][-1] == CODES[kind], (result, said[-1][-2000:])
    if ranks == 2:
        assert result["codes"][0] not in (0, None)
    if kind in ("loop", "worker", "memory"):
        assert "Traceback (most recent call last)" in said[-1]
    elif CODES[kind] == 2:
        assert said[-1].splitlines()[-1].startswith("error: ") and "Traceback" not in said[-1]
    if workers and program != "compare" and kind not in ("missing", "worker", "videos"):
        assert result["children"] >= workers * ranks   # they were there
    fault(f"{kind}: {program}, {workers} workers, {ranks} rank(s)",
          f"ended after {result['seconds']} s with {result['codes']}")
