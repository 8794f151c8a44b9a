"""The answer for each video of a list: tables of predictions, the confusion matrix, the most confused pairs.

N: rows of the list, C: classes.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...datasets.files import json_text, write_whole, written_whole
from ...datasets.lists.class_names import named
from .evaluation import RowTable, ranked

MOST_PAIRS = 20


def answers(table: RowTable, paths: Sequence[str], names: Sequence[str] | None, k: int) -> Iterator[dict]:
    """One dictionary a row of the list, in its order.

    path; label and label_name (None: the list has none); predicted and predicted_name (None: unreadable); correct
    (None without a label; an unreadable video counts as wrong); top: the k most probable classes, the first one
    first, each {"class", "name", "probability"}; note: why the video cannot be read, else "".
    """
    classes = ranked(table.values, k)
    values = table.values.gather(1, classes)
    for row, (path, label) in enumerate(zip(paths, table.labels.tolist(), strict=True)):
        note = table.faults.get(row, "")
        top = [] if row in table.faults else [
            {"class": place, "name": named(place, names), "probability": round(value, 6)}
            for place, value in zip(classes[row].tolist(), values[row].tolist(), strict=True)]
        predicted = top[0]["class"] if top else None
        yield {"path": path, "label": label if label >= 0 else None,
               "label_name": named(label, names) if label >= 0 else None,
               "predicted": predicted, "predicted_name": top[0]["name"] if top else None,
               "correct": predicted == label if label >= 0 else None, "top": top, "note": note}


def write_predictions(path: str | Path, rows: Sequence[dict], k: int = 5) -> None:
    """The `answers` as CSV: path, label, predicted, correct (1 or 0), the names, the k classes with their
    probabilities, and the note; a cell is empty where there is nothing to say."""
    ranks = [f"{column}_{rank}" for rank in range(1, k + 1) for column in ("class", "name", "probability")]
    with written_whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "predicted", "correct", "label_name", "predicted_name", *ranks, "note"])
        for row in rows:
            cells = [cell for one in row["top"][:k] for cell in (one["class"], one["name"], one["probability"])]
            writer.writerow([row["path"], row["label"], row["predicted"],
                             None if row["correct"] is None else int(row["correct"]), row["label_name"],
                             row["predicted_name"], *cells, *[None] * (3 * k - len(cells)), row["note"]])


def write_json(path: str | Path, rows: Sequence[dict]) -> None:
    """The `answers` as a JSON list, a row a line."""
    write_whole(path, "[\n" + ",\n".join(json_text(row) for row in rows) + "\n]\n")


def confusion(table: RowTable) -> Tensor:
    """int64 (C, C + 1): how many videos of each class (row) were taken for each class (column); the last column
    counts those that cannot be read. Rows of the list without a label are left out."""
    classes = table.values.shape[1]
    predicted = torch.where(table.readable, ranked(table.values, 1)[:, 0], classes)
    labelled = table.labels >= 0
    places = table.labels[labelled] * (classes + 1) + predicted[labelled]
    return torch.bincount(places, minlength=classes * (classes + 1)).view(classes, classes + 1)


def most_confused(matrix: Tensor, names: Sequence[str] | None, most: int = MOST_PAIRS) -> list[dict]:
    """The pairs (class, what it was taken for) with the most videos, the largest first; ties in order of labels.

    share: of the class's videos, unreadable ones included.
    """
    wrong = matrix[:, :-1].clone().fill_diagonal_(0).flatten()
    order = torch.argsort(wrong, descending=True, stable=True)[:most]
    classes, totals = len(matrix), matrix.sum(dim=1).tolist()
    pairs = []
    for place in order.tolist():
        label, predicted, count = place // classes, place % classes, int(wrong[place])
        if count:
            pairs.append({"label": label, "label_name": named(label, names), "predicted": predicted,
                          "predicted_name": named(predicted, names), "count": count,
                          "share": round(count / totals[label], 4)})
    return pairs


def write_confusion(path: str | Path, matrix: Tensor, names: Sequence[str] | None) -> None:
    """The confusion matrix as CSV: a line for each true class, a column for each predicted one."""
    classes = [named(label, names) for label in range(len(matrix))]
    with written_whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["true class", *classes, "unreadable"])
        writer.writerows([name, *counts] for name, counts in zip(classes, matrix.tolist(), strict=True))
