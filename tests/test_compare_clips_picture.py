"""The picture of the comparison on real clips: a column for each reading that was made, differences where there are
random masks to compare with."""

from argparse import Namespace

import pandas as pd
import pytest
from matplotlib.figure import Figure
from tats.engines.compare_clips.figure import draw_results

CLIPS = pd.MultiIndex.from_tuples([("a.mp4", "x"), ("b.mp4", "x"), ("c.mp4", "y")], names=["path", "group"])


@pytest.mark.parametrize(("methods", "readings", "titles"), [
    (["random", "tats"], ["linear", "features"], ["linear", "", "flow, from tokens", ""]),
    (["tats"], ["knn"], ["k-NN"]), (["random"], ["linear", "knn", "finetuned", "features"],
                                    ["linear", "k-NN", "fine-tuned", "flow, from tokens"]),
    (["random"], [], None), ([], ["linear"], None)])
def test_readings_that_were_not_made_have_no_column(methods, readings, titles, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    results = Namespace(methods=[(method, .9) for method in methods], measured=lambda method, ratio, reading: {
        seed: pd.Series([100., 0., 50. * seed], CLIPS) for seed in (0, 1)} if reading in readings else {})
    draw_results(results, pd.Series([100., 0., 0.], CLIPS), tmp_path / "picture.png")
    assert [[axes.get_title() for axes in figure.axes] for figure in drawn] == ([] if titles is None else [titles])
