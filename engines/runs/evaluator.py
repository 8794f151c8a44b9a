"""Validation and the final test of a run: the same loaders for a trained network and for frozen features."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from ...datasets.labelled import Views
from ...datasets.lists.list_file import ClipList, read_list, scan_list
from .. import engine_for_finetuning
from ..config.finetuning import Settings
from ..core.identity import list_hash
from ..core.logs import Progress
from ..core.records import file_hash
from ..core.runtime import Runtime
from ..engine_for_finetuning import EvaluationSetup
from ..figures.answers import draw_confusion
from ..finetune.answers import answers, confusion, most_confused, write_confusion, write_predictions
from ..finetune.evaluation import RowTable, accuracies, write_result
from ..finetune.frozen import features_of, knn_scores
from ..training.batches import Normalizer
from ..training.learner import Learner
from .between_steps import BetweenSteps
from .finetuning_build import Task, evaluation_loader, unreadable, unseen_classes

logger = logging.getLogger(__name__)


def read_labelled(path: Path, classes: int) -> ClipList:
    """A list whose every row has a label.

    Raises:
        FileNotFoundError, ValueError: as `read_list`; of rows without a label it says which program takes them.
    """
    try:
        return read_list(path, num_classes=classes)
    except ValueError as error:
        if not (scan_list(path, need_label=False)[0].labels < 0).any():
            raise
        raise ValueError(f"{error}. Training and accuracy need the labels; for the answers to videos without: "
                         f"python -m tats.engines.predict CHECKPOINT {path}") from None


class Evaluator:
    """Evaluates networks on the run's lists.

    Args:
        lists: "val", "test" and, for nearest neighbours, "train", those that are needed.
        size: side in pixels of the clips.

    Attributes:
        class_names: of the labels, for the files that `test` writes; None: their numbers.
        between: called after each batch, as often on every process; None: nothing is.
        place: (output_dir, result) -> the folder for the files of a test.
    """

    place: Callable[[Path, Mapping], Path] = staticmethod(lambda folder, result: folder)
    class_names: Sequence[str] | None = None
    between: Callable[[], None] | None = None

    def __init__(self, settings: Settings, task: Task, lists: Mapping[str, ClipList], size: int, runtime: Runtime):
        self.settings, self.task, self.lists, self.size, self.runtime = settings, task, lists, size, runtime
        self.setup = EvaluationSetup(Normalizer(runtime.device), runtime, settings.optim.batch_size)

    def _loader(self, split: str, segments: int, crops: int) -> Progress | BetweenSteps:
        views = Views(segments, crops, self.size, self.settings.data.short_side_size)
        loader = Progress(evaluation_loader(self.lists[split], self.task, views, self.settings, self.runtime),
                          {"val": "validation"}.get(split, split), every=self.settings.run.print_freq,
                          visible=self.runtime.is_main)
        return loader if self.between is None else BetweenSteps(loader, 1, self.between)

    def must_read_some(self) -> None:
        """Look at the lists that are evaluated before anything is trained; every process must call.

        Raises:
            ValueError: none of the first videos of one of them can be read.
        """
        problems = [problem for split, clips in self.lists.items() if split != "train"
                    if (problem := unreadable(clips, self.task, Views(0, 1, self.size), self.settings))]
        for line in unseen_classes(self.lists):
            logger.warning("%s", line)
        for problem in (one for found in self.runtime.gather_objects(problems) for one in found):
            raise ValueError(problem)

    def validate(self, learner: Learner) -> dict[str, float]:
        """Centre clips of val.csv: the same in every epoch. Raises ValueError: none of them can be read."""
        learner.net.eval()
        loader, clips = self._loader("val", 0, 1), self.lists["val"]
        return engine_for_finetuning.validate(loader, learner, self.setup, len(clips), clips.source)

    def scores(self, learner: Learner) -> RowTable:
        """Probabilities of the test list's videos, the mean over their views; labels may be missing."""
        learner.net.eval()
        return engine_for_finetuning.test_views(self._loader("test", self.task.segments, self.task.crops), learner,
                                                self.setup, len(self.lists["test"]))

    def test(self, learner: Learner, source: Path | None, run: Mapping = MappingProxyType({})) -> dict:
        """Multi-view test; writes predictions.csv, confusion.csv, confusion.png and result.json, and returns what is
        in the last.

        Args:
            learner: the network.
            source: the file that holds its weights, named by its hash. None, or a file that is not there: no hash.
            run: what else the result says of the run that the weights are from.
        """
        tests, task = self.lists["test"], self.task
        knn = self.settings.evaluation.eval_mode == "knn"
        table = self._nearest_neighbours(learner) if knn else self.scores(learner)
        table.must_hold_something(tests.source)
        for row, fault in table.faults.items():
            logger.warning("counted as wrong: line %d of %s, %s", tests.lines[row], tests.source, fault)
        matrix = confusion(table)
        result = accuracies(table) | {
            "views": {"segments": task.segments, "crops": task.crops},
            "unreadable": [{"line": int(tests.lines[row]), "path": tests.paths[row], "cause": fault}
                           for row, fault in table.faults.items()],
            "eval_mode": self.settings.evaluation.eval_mode, "test_weights": self.settings.evaluation.test_weights,
            "test": {"list": list_hash(tests), "sampling": task.sampling._asdict(), "size": self.size,
                     "short_side": self.settings.data.short_side_size},
            "checkpoint_sha256": file_hash(source) if source is not None and source.is_file() else None,
            "most_confused": most_confused(matrix, self.class_names), **run}
        if self.runtime.is_main and self.settings.run.output_dir:
            folder = self.place(Path(self.settings.run.output_dir), result)
            write_predictions(folder / "predictions.csv", list(answers(table, tests.paths, self.class_names, 5)))
            write_confusion(folder / "confusion.csv", matrix, self.class_names)
            draw_confusion(matrix, self.class_names, folder / "confusion.png")
            write_result(folder, result)   # last: where it is, the others are too
        logger.info("test: top-1 %.2f, top-5 %.2f on %d of %d videos, %d x %d views", result["top1"], result["top5"],
                    result["num_evaluated"], result["num_expected"], task.segments, task.crops)
        return result

    def _nearest_neighbours(self, learner: Learner) -> RowTable:
        """k-NN scores of the test list among the centre clips of the training list."""
        learner.net.eval()
        test_loader = self._loader("test", self.task.segments, self.task.crops)
        features = features_of(learner.module, learner.precision)
        train = engine_for_finetuning.evaluate_rows(self._loader("train", 0, 1), features, self.setup,
                                                    len(self.lists["train"]))
        test = engine_for_finetuning.evaluate_rows(test_loader, features, self.setup, len(self.lists["test"]))
        evaluation = self.settings.evaluation
        return knn_scores(train, test, self.task.classes, evaluation.knn_k, evaluation.knn_temperature)
