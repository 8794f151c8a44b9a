"""Tables of a comparison of masking strategies: means and deviations over seeds, paired differences to random masks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from ..core.metrics import current_names

BASELINE = "random"
MASKS = {"auroc": ("AUROC", 3), "average_precision": ("AP", 3), "moving_auroc": ("moving AUROC", 3),
         "enrichment": ("enrichment", 2), "texture_enrichment": ("texture enrichment", 2),
         "fixed_error": ("error, fixed mask", 3), "moving_error": ("of moving tokens", 3),
         "foreseen": ("of them foreseen", 3), "filled_in": ("filled in", 3),
         "visible_tokens": ("visible", 0)}
FEATURES = {"linear_motion": ("linear", 1), "knn_motion": ("k-NN", 1), "finetune_motion": ("fine-tuned", 1),
            "linear_appearance": ("linear", 1), "knn_appearance": ("k-NN", 1), "finetune_appearance": ("fine-tuned", 1),
            "finetune_few": ("fine-tuned on motion, few labels", 1),
            "finetune_motion_mean": ("fine-tuned on motion, mean of several", 1)}
TOKENS = {"token_things": ("things", 2), "token_motion": ("which of them move", 2),
          "token_texture": ("their textures", 2)}
LEARNING = {"entropy_share": ("entropy share", 3), "clip_fraction": ("clip fraction", 3), "approx_kl": ("KL", 5),
            "value_explained_variance": ("value explains", 2), "motion_correlation": ("corr. with frame difference", 2),
            "pretraining_cpu_seconds": ("pre-training, CPU s", 0), "peak_rss_mib": ("peak MiB", 0)}

CELL = ["method", "mask_ratio", "seed"]   # what names a cell


def read_csv(path: Path) -> pd.DataFrame:
    """The cells that `write_csv` wrote, as `as_frame`.

    Raises:
        ValueError: the file is none of its tables.
    """
    try:
        frame = pd.read_csv(path, dtype={"method": str, "mask_ratio": float, "seed": int}, na_values=[""],
                            keep_default_na=False)
        if not isinstance(frame.index, pd.RangeIndex):   # rows of more fields than the head has
            raise ValueError
        return as_frame(frame.astype({name: float for name in frame.columns.drop(CELL)}).to_dict("records"))
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{path} is no moving_shapes.csv of compare_masks: it has no method, mask_ratio and seed, or "
                         "a value that is no number") from None


def as_frame(cells: Iterable[dict]) -> pd.DataFrame:
    """A row a cell, under today's names; NaN for what was not measured."""
    known = [current_names({name: value for name, value in cell.items() if not pd.isna(value)}) for cell in cells]
    return pd.DataFrame(known, columns=None if known else CELL)


def summary(cells: Sequence[dict]) -> Iterator[str]:
    """Markdown: for each mask ratio what the masks look at, what the features are worth, how the policy learned."""
    for ratio, here in as_frame(cells).groupby("mask_ratio"):
        seeds = here.groupby("method")["seed"].nunique()
        fewer = "up to " * bool((seeds < seeds.max()).any())
        yield f"## Mask ratio {ratio:g} ({fewer}{seeds.max()} seeds)\n"
        yield from table("What the masks look at", _measured(MASKS, here), here, spread)
        if features := _measured(FEATURES, here):
            yield from table("Features, top-1 in %: three columns on motion classes, then three on appearance classes",
                             features, here, spread)
            yield from differences(features, here)
        if tokens := _measured(TOKENS, here):
            yield from table("Single frozen tokens, read linearly, in %: two columns of AUROC, then top-1", tokens,
                             here, spread)
            yield from differences(tokens, here)
        yield from table("How the policy learned, and its cost", LEARNING, here, spread)


def _measured(columns: dict[str, tuple[str, int]], cells: pd.DataFrame) -> dict[str, tuple[str, int]]:
    return {name: column for name, column in columns.items() if name in cells and cells[name].notna().any()}


def table(title: str, columns: dict[str, tuple[str, int]], cells: pd.DataFrame,
          shown: Callable[[pd.Series, int], str]) -> Iterator[str]:
    """One table, a line a method: `shown` makes a text of the column's values over the seeds and its digits. Nothing
    without columns. "(n)" stands behind numbers of fewer seeds than others of the table have."""
    if not columns:
        return
    methods = cells.reindex(columns=["method", *columns]).groupby("method", sort=False)
    texts = pd.concat([methods[key].agg(shown, digits) for key, (_, digits) in columns.items()], axis=1)
    counts = methods[list(columns)].count()
    fewer = (counts > 0) & (counts < counts.to_numpy().max())
    texts = texts.mask(fewer, texts + " (" + counts.astype(str) + ")")
    yield f"**{title}**\n"
    yield texts.to_markdown(headers=["method", *(name for name, _ in columns.values())], disable_numparse=True)
    yield ""


def pairs(tables: Sequence[pd.DataFrame], names: Sequence[str], baseline: str = BASELINE) -> pd.DataFrame:
    """Methods' numbers less those of the baseline's cell of the same table, mask ratio and seed: a row a cell that has
    such a partner, with its method, mask_ratio and the differences, NaN where either lacks the number. Cells of
    different tables are never paired: they may be of different data, schedules or machines."""
    found = []
    for cells in tables:
        cells = cells.drop_duplicates(CELL, keep="last").reindex(columns=[*CELL, *names])
        base = cells[cells["method"] == baseline].set_index(["mask_ratio", "seed"])
        others = cells[cells["method"] != baseline].set_index(["mask_ratio", "seed"])
        others = others[others.index.isin(base.index)]
        found.append(others.assign(**{name: others[name] - base[name].reindex(others.index) for name in names}))
    return pd.concat(found).reset_index()[["method", "mask_ratio", *names]]


def differences(columns: dict[str, tuple[str, int]], cells: pd.DataFrame) -> Iterator[str]:
    """The features' table again as differences to random masks of the same seed: mean and its standard error."""
    found = pairs([cells], list(columns)).dropna(how="all", subset=list(columns))
    if len(found):
        yield from table("Paired differences to random masks, in points: mean ± standard error over seeds", columns,
                         found, _difference)


def agreement(cells: Sequence[dict], earlier: Path) -> Iterator[str]:
    """How many means over seeds lie within one standard deviation of those of an earlier moving_shapes.csv.

    Counted are numbers that can differ: not the number of visible tokens, nor rankings of a policy that is uniform.
    Two runs of three seeds that differ by chance alone agree in this sense in 65 % of their numbers: with t of two
    degrees of freedom, P(|t| < sqrt(3 / 2)).

    Raises:
        ValueError: the file has no number of these cells with two seeds or more.
    """
    names = [name for name in [*MASKS, *FEATURES, *TOKENS] if name != "visible_tokens"]
    there, here = (dict(list(frame.reindex(columns=[*CELL, *names]).groupby(["method", "mask_ratio"], sort=False)))
                   for frame in (read_csv(earlier), as_frame(cells)))
    outside, count, same = [], 0, 0
    for (method, ratio), name in ((key, name) for key in here if key in there for name in names):
        old, new = there[method, ratio][name].dropna(), here[method, ratio][name].dropna()
        if len(old) < 2 or not len(new) or pd.concat([old, new]).nunique() == 1:
            continue
        same += old.tolist() == new.tolist()
        count += 1
        if abs(new.mean() - old.mean()) > old.std() + 1e-9:
            outside.append([method, f"{ratio:g}", name, spread(old, 3), f"{new.mean():.3f}"])
    if not count:
        raise ValueError(f"{earlier} has no numbers of these cells with two seeds or more: nothing to compare")
    yield (f"{count - len(outside)} of {count} means within one standard deviation of {earlier}, {same} of them of the "
           "very same numbers; outside:\n")
    yield pd.DataFrame(outside, columns=["method", "mask ratio", "", "there", "here"]).to_markdown(
        index=False, disable_numparse=True)


def spread(values: pd.Series, digits: int) -> str:
    """mean ± standard deviation, a dash where nothing was measured."""
    return _mean_and(values, f".{digits}f", values.std(), digits)


def _difference(values: pd.Series, digits: int) -> str:
    return _mean_and(values, f"+.{digits}f", values.sem(), digits)


def _mean_and(values: pd.Series, form: str, error: float, digits: int) -> str:
    if not values.count():
        return "–"
    return f"{values.mean():{form}}" + (f" ± {error:.{digits}f}" if values.count() > 1 else "")
