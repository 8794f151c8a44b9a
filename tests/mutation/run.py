"""Mutation testing: change the code in one place, and see whether a test fails.

    python tests/mutation/run.py --sample 300 --seed 0

It draws 300 places of the files in targets.py, changes each in one way in a copy of the checkout, and runs that
file's tests until one fails. The same command goes on where it was ended. `mutants.csv` gets a row a mutant,
`summary.md` the score of each file and the survivors; both stand in --out. Needs the extra `dev`.
"""

import argparse
import fnmatch
import importlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"   # before torch is imported: a fork of a process with threads may hang

from mutants import Mutant, mutated, sample
from report import add_row, read_rows, summary
from targets import TARGETS, tests_of
from trial import Outcome, Trial, copy_checkout

ROOT = Path(__file__).parents[2]
logger = logging.getLogger("mutation")


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=300, help="mutants")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--files", nargs="+", default=["*"], metavar="PATTERN", help="only these, e.g. masking/*.py")
    parser.add_argument("--again", nargs="*", default=[], metavar="VERDICT", choices=("survived", "killed", "timeout"),
                        help="try mutants with this verdict once more, e.g. after new tests")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at once")
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "mutation", help="folder of the results")
    return parser


def sources(patterns: Sequence[str]) -> dict[str, str]:
    """The text of the files of targets.py that match one of `patterns`, by path below the root.

    Raises:
        ValueError: none matches.
    """
    files = sorted({path.relative_to(ROOT).as_posix() for pattern in TARGETS for path in ROOT.glob(pattern)})
    found = {name: (ROOT / name).read_text() for name in files
             if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}
    if not found:
        raise ValueError(f"--files: none of {', '.join(files)} matches {' '.join(patterns)}")
    return found


def existing_tests(copy: Path, file: str) -> tuple[str, ...]:
    """The tests of a file; those that are not in this copy of the checkout are left out."""
    return tuple(test for test in tests_of(file) if (copy / "tests" / test.split("::")[0]).exists())


def cpu_limits(copy: Path, files: Sequence[str]) -> dict[tuple[str, ...], int]:
    """Processor seconds that each set of tests may take: three times what it takes without a mutant, and ten.

    Raises:
        ValueError: tests fail without any mutant.
    """
    limits = {}
    for tests in {existing_tests(copy, file): None for file in files}:
        begun = os.times()
        outcome = waited(Trial(copy, tests, 3600))
        if outcome.verdict != "survived":
            raise ValueError(f"without any mutant {' '.join(tests)}: {outcome.verdict} by {outcome.by}; see "
                             f"{copy.parent / 'log'}")
        ended = os.times()
        spent = ended.children_user + ended.children_system - begun.children_user - begun.children_system
        limits[tests] = int(3 * spent) + 10
        logger.info("%.1f s of processor time without a mutant: %s", spent, " ".join(tests))
    return limits


def waited(trial: Trial) -> Outcome:
    """The outcome of a trial."""
    while (outcome := trial.poll()) is None:
        time.sleep(0.05)
    return outcome


def drop_bytecode(copy: Path, file: str) -> None:
    """Python tells a source from its bytecode by size and second: a mutant may have both in common with the source."""
    path = copy / file
    for cached in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
        cached.unlink()


def try_all(mutants: Sequence[Mutant], texts: dict[str, str], copies: list[Path],
            limits: dict[tuple[str, ...], int], out: Path) -> None:
    """Try mutants, one in each copy at once, and add their rows."""
    waiting, running, free = list(reversed(mutants)), {}, list(copies)
    done = 0
    while waiting or running:
        while waiting and free:
            mutant, copy = waiting.pop(), free.pop()
            (copy / mutant.file).write_text(mutated(texts[mutant.file], mutant.operator, mutant.occurrence))
            tests = existing_tests(copy, mutant.file)
            running[Trial(copy, tests, limits[tests])] = mutant
        for trial, mutant in list(running.items()):
            outcome = trial.poll()
            if outcome is None:
                continue
            running.pop(trial)
            (trial.copy / mutant.file).write_text(texts[mutant.file])
            free.append(trial.copy)
            add_row(out / "mutants.csv", mutant, outcome)
            done += 1
            logger.info("%d/%d %s %s:%d %s -> %s", done, len(mutants), outcome.verdict, mutant.file, mutant.line,
                        mutant.before, mutant.after)
        time.sleep(0.05)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments.out.mkdir(parents=True, exist_ok=True)
    texts = sources(arguments.files)
    mutants = sample(texts, arguments.sample, arguments.seed)
    known = read_rows(arguments.out / "mutants.csv")
    missing = [one for one in mutants if one not in known or known[one].verdict in arguments.again]
    logger.info("%d mutants, %d of them to be tried", len(mutants), len(missing))
    if missing:
        for name in ("torch", "timm", "einops", "numpy", "torchvision", "av", "matplotlib.figure"):
            importlib.import_module(name)
        sys.dont_write_bytecode = False
        with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
            copies = [copy_checkout(ROOT, Path(folder) / str(number)) for number in range(arguments.jobs)]
            limits = cpu_limits(copies[0], [one.file for one in missing])
            for copy in copies:
                for file in texts:
                    drop_bytecode(copy, file)
            sys.dont_write_bytecode = True
            try_all(missing, texts, copies, limits, arguments.out)
    results = read_rows(arguments.out / "mutants.csv")
    page = summary({one: results[one] for one in mutants}, arguments.seed)
    (arguments.out / "summary.md").write_text(page)
    sys.stdout.write(page)


if __name__ == "__main__":
    main()
