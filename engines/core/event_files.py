"""TensorBoard's event files, written at once and in this thread.

tensorboardX's own SummaryWriter leaves that to a thread, which dies of a full disk; the run then waits for ever when
the queue to it is full, or at its end.
"""

import contextlib
import itertools
import time
from pathlib import Path

import numpy as np

from ...datasets.files import naming


class EventFiles:
    """Scalars and images of a run. After an error a new file is begun: TensorBoard reads all of a folder.

    Raises, from every method:
        OSError: no room; what was to be written is lost.
    """

    def __init__(self, folder: str | Path):
        self._prefix, self._numbers, self._file = str(Path(folder) / "events"), itertools.count(), None
        Path(folder).mkdir(parents=True, exist_ok=True)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """One point on each curve."""
        from tensorboardX.summary import scalar

        self._write([scalar(name, value) for name, value in values.items()], step)

    def image(self, name: str, picture: np.ndarray, step: int) -> None:
        """uint8 (H, W, 3)."""
        from tensorboardX.summary import image

        self._write([image(name, picture, dataformats="HWC")], step)

    def _write(self, summaries: list, step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event

        try:
            with naming(f"{self._prefix}.out.tfevents.*"):
                if self._file is None:
                    Path(self._prefix).parent.mkdir(parents=True, exist_ok=True)
                    self._file = EventsWriter(self._prefix, f".{next(self._numbers)}")
                for summary in summaries:
                    self._file.write_event(Event(summary=summary, step=step, wall_time=time.time()))
                self._file.flush()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """The next write begins another file."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):   # said where it was met
                file.close()
