"""Run row scripts with DRY_RUN=1 and read the commands they print with the programs' own parsers."""

import functools
import importlib
import os
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

SCRIPTS = Path(__file__).parents[1] / "run_scripts"
VARIABLES = ("METHOD METHODS TATS_RECIPE DATA_ROOT OUTPUT_ROOT CHECKPOINT GPUS NNODES NODE_RANK MASTER_ADDR "
             "MASTER_PORT PYTHON VENV DEEPSPEED ZERO_STAGE DRY_RUN SMOKE STAGE SKIP_FINISHED LIST_ROWS SRUN "
             "CUDA_VISIBLE_DEVICES MAX_TASKS CPUS SLURM_ARRAY_TASK_ID SEED SEEDS OF_A_TABLE BASELINES "
             "ANY_SIZE REHEARSE_STEPS EXPLAIN COMPARE ROWS FIGURES").split()


class Command(NamedTuple):
    """A printed command: what starts the program, the program's module, its arguments, and these parsed."""

    launcher: list[str]
    module: str
    words: list[str]
    args: object


def run_script(name, *arguments, **environment):
    """Run a script of run_scripts with nothing but `environment` set of what it reads."""
    clean = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    return subprocess.run([SCRIPTS / name, *arguments], env={**clean, **environment}, capture_output=True, text=True,
                          check=False, timeout=1200)


def dry_run(name, *arguments, **environment):
    """The commands that a script prints."""
    return list(_dry_run(name, arguments, tuple(sorted(environment.items()))))


@functools.cache
def _dry_run(name, arguments, environment):
    settings = {"DRY_RUN": "1", "GPUS": "8", "PYTHON": "python", "DATA_ROOT": "/data", "OUTPUT_ROOT": "/out"}
    done = run_script(name, *arguments, **{**settings, **dict(environment)})
    assert done.returncode == 0, done.stderr
    return [_read(line) for line in done.stdout.splitlines()]


def _read(line):
    words = shlex.split(line)
    place = next(index for index, word in enumerate(words) if word.startswith("tats."))
    module = words[place]
    parser = importlib.import_module(module).get_parser()
    return Command(words[:place - 1], module.removeprefix("tats.engines."), words[place + 1:],
                   parser.parse_args(words[place + 1:]))
