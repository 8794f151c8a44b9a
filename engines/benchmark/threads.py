"""Compute threads on a machine that is not alone: an epoch of a small TATS run, and the same beside busy programs.

The real program, in processes of its own: OpenMP reads how threads wait when a process starts.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...datasets.processes.cores import WAITING, usable_cores
from ..machine.threads import COUNTS

EPOCHS = 2        # the first one warms up
FLAGS = ("--model", "pretrain_tats_tiny", "--data_set", "moving-shapes", "--mask_ratio", "0.75", "--pretrain_aug",
         "resize", "--batch_size", "16", "--mask_type", "tats", "--mae_only_epochs", "0", "--num_workers", "1",
         "--warmup_epochs", "0", "--epochs", str(EPOCHS), "--device", "cpu")
ALONE, BUSY = "alone", "busy"


def contestants(cores: int) -> dict[str, dict[str, str]]:
    """Environments: the threads that the program chooses, one a core asleep while they wait, one a core spinning as
    OpenMP's do by themselves."""
    one_a_core = {"OMP_NUM_THREADS": str(cores)}
    return {"chosen": {}, "one a core, asleep": one_a_core | {"OMP_WAIT_POLICY": "passive"},
            "one a core, spinning": one_a_core | {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}}


def measure(pairs: int, clips: int) -> list[dict]:
    """A row a contestant: medians of the seconds of an epoch alone and with one busy program a core, and the median of
    their ratios. All take turns.

    Args:
        clips: of an epoch.
    """
    cores = usable_cores()
    asked = contestants(cores)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
    with tempfile.TemporaryDirectory(prefix="tats-threads-") as folder:
        data = Path(folder) / "shapes"
        _run("tats.datasets.moving_shapes", "--out", str(data), "--train", str(clips), "--val", "8", "--test", "8")
        for turn in range(pairs):
            for name, environment in asked.items():
                pair = []
                for beside in (0, cores):
                    with busy_programs(beside):
                        pair.append(epoch_seconds(data, Path(folder) / f"{turn}-{beside}-{name}", environment))
                times[name].append((pair[0], pair[1]))
    return [row_of(name, own, cores) for name, own in times.items()]


def row_of(name: str, times: list[tuple[float, float]], cores: int) -> dict:
    """The row of a contestant's pairs (seconds alone, seconds beside busy programs)."""
    alone, busy = zip(*times, strict=True)
    return {"name": name, "runs": len(times), "cores": cores, f"{ALONE}_seconds": statistics.median(alone),
            f"{BUSY}_seconds": statistics.median(busy),
            f"{BUSY}_over_{ALONE}": statistics.median(more / less for less, more in times)}


def epoch_seconds(data: Path, out: Path, environment: Mapping[str, str]) -> float:
    """Of the last epoch of a run, as its log says."""
    _run("tats.engines.run_mae_pretraining", *FLAGS, "--data_path", str(data / "train.csv"), "--output_dir", str(out),
         environment=environment)
    return json.loads((out / "log.txt").read_text().splitlines()[-1])["seconds"]


@contextlib.contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """So many processes that do nothing but hold a core, while the block runs."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _run(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
    """Raises ValueError: the program failed; its last line."""
    kept = {name: value for name, value in os.environ.items() if name not in (*COUNTS, *WAITING)}
    done = subprocess.run([sys.executable, "-m", module, *arguments], env=kept | dict(environment or {}),
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"{module}: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
