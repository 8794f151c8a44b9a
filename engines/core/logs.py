"""What a run leaves behind for people: log.txt, TensorBoard events, lines and a bar on the terminal."""

import contextlib
import errno
import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ...datasets.files import json_text, write_whole
from ..config.common import RunConfig
from .event_files import EventFiles

logger = logging.getLogger(__name__)


class Lines(logging.Formatter):
    """A warning says that it is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """As logging's own."""
        text = super().formatMessage(record)
        return text if record.levelno < logging.WARNING else text.replace(" ", f" {record.levelname} ", 1)


def set_up_logging(is_main: bool) -> None:
    """Messages of rank 0 go to stderr; the other ranks only report warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO if is_main else logging.WARNING, handlers=[handler])
    logging.captureWarnings(True)
    quiet_known_warnings()
    for chatty in ("matplotlib", "PIL", "torch.distributed", "libav"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def read_log(log: Path) -> list[dict]:
    """The records of a log.txt. A last line that a kill has torn is left out with a warning.

    Raises:
        ValueError: another line is no JSON record with an epoch.
    """
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
             if line.strip()]
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not isinstance(record["epoch"], int | float):
                raise TypeError("the epoch is no number")
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and not line.endswith("\n"):
                logger.warning("%s: the last line is torn and left out", log)
                continue
            raise ValueError(f"{log}, line {number}: not a JSON record with an epoch ({error})") from None
        records.append(record)
    return records


def quiet_known_warnings() -> None:
    """torch's words for more workers than cores, twice for each loader: the line about threads says it once."""
    warnings.filterwarnings("ignore", message="This DataLoader will create")


class RunLog(contextlib.AbstractContextManager):
    """One JSON line an epoch in log.txt, and scalars for TensorBoard; does nothing without a folder.

    A full disk does not end a run: it warns, and lines of log.txt wait until there is room.

    Args:
        run: its output_dir and log_dir.
        first: the epoch that the run starts with. Lines from there on, which a run left that was killed, are dropped
            where it goes on.
        is_main: False: does nothing.
    """

    def __init__(self, run: RunConfig, first: int = 0, is_main: bool = True):
        self._file = Path(run.output_dir) / "log.txt" if run.output_dir and is_main else None
        self._events, self._waiting, self._written = None, [], []
        if self._file is not None and self._file.is_file():
            self._written = self._kept_before(first)
        if (run.log_dir or run.output_dir) and is_main:
            self._folder = run.log_dir or run.output_dir
            self._events = EventFiles(self._folder)

    def _kept_before(self, first: int) -> list[str]:
        """The lines that stay: not those of epochs that run again, and not what a kill has torn."""
        lines = self._file.read_text(encoding="utf-8", errors="surrogateescape").splitlines(keepends=True)
        kept = [line for line in lines if _epoch_of(line) < first]
        if len(kept) < len(lines):
            logger.info("%s: %d line(s) are torn or of epochs that run again", self._file, len(lines) - len(kept))
        whole = [line.removesuffix("\n") + "\n" for line in kept]   # an editor may have left the last one open
        if whole != lines:
            write_whole(self._file, "".join(whole))
        return whole

    def epoch(self, record: dict) -> None:
        """Append `record` (it holds "epoch"), null for what is not finite; its numbers become scalars too."""
        with outliving_a_full_disk("log.txt"):
            if self._file is not None:
                self._waiting.append(json_text(record) + "\n")
                self._restore()
                while self._waiting:
                    _append(self._file, self._waiting[0])
                    self._written.append(self._waiting.pop(0))
        with outliving_a_full_disk("TensorBoard's events"):
            if self._events is not None:
                self._curves(record)

    def _restore(self) -> None:
        """All lines again where log.txt has been deleted since, and their curves for TensorBoard in a new file."""
        if self._file.is_file() or not self._written:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            return
        write_whole(self._file, "".join(self._written))
        logger.warning("%s was deleted during the run: it is written again, with all of its lines", self._file)
        if self._events is not None and Path(self._folder).resolve() == self._file.parent.resolve():
            self._events.close()
            for line in map(json.loads, self._written):
                self._curves(line)

    def _curves(self, record: dict) -> None:
        numbers = {name: value for name, value in record.items() if isinstance(value, int | float) and name != "epoch"}
        self._events.scalars({name: value for name, value in numbers.items() if math.isfinite(value)}, record["epoch"])

    def pictures(self, paths: Iterable[Path], epoch: int) -> None:
        """PNG files as TensorBoard images, under their names without the epoch."""
        if self._events is not None:
            from PIL import Image

            for path in paths:
                self._events.image(path.stem.split("-", 2)[-1], np.asarray(Image.open(path).convert("RGB")), epoch)

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with outliving_a_full_disk("log.txt"):
                self._restore()
        if self._events is not None:
            self._events.close()


def _epoch_of(line: str) -> float:
    """inf for a line that is not whole, or no record of an epoch."""
    try:
        epoch = json.loads(line)["epoch"]
    except (ValueError, KeyError, TypeError):
        return math.inf
    return epoch if isinstance(epoch, int | float) else math.inf


def _append(path: Path, line: str) -> None:
    """The whole line or nothing of it.

    Raises:
        OSError: no room.
    """
    with open(path, "ab", buffering=0) as file:
        before = file.tell()
        try:
            written = file.write(line.encode())
        except OSError:
            written = 0
        if written < len(line.encode()):
            file.truncate(before)
            raise OSError(errno.ENOSPC, "no room for a line", str(path))


@contextlib.contextmanager
def outliving_a_full_disk(what: str) -> Iterator[None]:
    """What cannot be written inside the block is named in a warning; for what a run can do without."""
    try:
        yield
    except OSError as error:
        logger.warning("%s cannot be written: %s", what, error)


class Progress:
    """A loader that reports: a bar on rank 0 of a terminal, else a plain line every `every` batches.

    `data_share` is the share of the time so far that was spent waiting for data. `means` returns numbers by name, of
    which "loss" is shown; None: there are none.
    """

    def __init__(self, loader: Iterable, title: str, means: Callable[[], Mapping[str, float]] | None = None,
                 every: int = 20, visible: bool = True):
        self.loader, self.title, self.means, self.every, self.visible = loader, title, means, every, visible
        self.data_time = self.total_time = 0.0

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def data_share(self) -> float:
        """Time spent waiting for the loader over all time."""
        return self.data_time / max(self.total_time, 1e-9)

    def __iter__(self) -> Iterator:
        bar = tqdm(total=len(self), desc=self.title, leave=False, disable=not (self.visible and sys.stderr.isatty()))
        start = before = time.perf_counter()
        for index, batch in enumerate(self.loader, start=1):
            self.data_time += time.perf_counter() - before
            yield batch
            before = time.perf_counter()
            self.total_time = before - start
            bar.update()
            if self.visible and index % self.every == 0:
                self._report(bar, index)
        bar.close()

    def _report(self, bar: tqdm, index: int) -> None:
        loss = f"loss {self.means().get('loss', math.nan):.4f}, " if self.means is not None else ""
        per_batch = self.total_time / index
        text = f"{loss}{per_batch:.3f} s a step, {self.data_share:.0%} of it waiting for data"
        if bar.disable:
            logger.info("%s [%d/%d] %s", self.title, index, len(self), text)
        else:
            bar.set_postfix_str(text)
