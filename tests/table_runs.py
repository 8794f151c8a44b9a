"""Folders of runs as they stand after training, and the tables that are made of them."""

import json

from tats.engines.tables import main

METHODS = ("videomae", "adamae", "tats")


def put_result(root, run, top1, top5, evaluated=10):
    (root / run).mkdir(parents=True, exist_ok=True)
    (root / run / "result.json").write_text(json.dumps(
        {"top1": top1, "top5": top5, "num_expected": 10, "num_evaluated": evaluated}))


def put_log(root, run, *peaks):
    (root / run).mkdir(parents=True, exist_ok=True)
    lines = [{"epoch": epoch, "peak_memory_gb": peak} for epoch, peak in enumerate(peaks)]
    (root / run / "log.txt").write_text("".join(json.dumps(line) + "\n" for line in lines))


def printed(capsys, root, *arguments):
    capsys.readouterr()
    status = main([str(root), *arguments])
    return status, capsys.readouterr().out
