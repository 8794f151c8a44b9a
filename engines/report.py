"""Compare runs on one self-contained page: curves, final numbers, settings that differ, pictures.

    python -m tats.engines.report out/tats out/tube --out report.html
"""

import argparse
import base64
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import fields
from html import escape
from pathlib import Path
from typing import NamedTuple

from ..datasets.program import run_program
from .config.flags import FlagParser
from .config.pretraining import SamplerConfig
from .core.logs import set_up_logging
from .figures.style import COLOURS
from .pretrain.alerts import alerts

logger = logging.getLogger(__name__)

FIRST = ("train_loss", "train_fixed_error", "train_reward", "train_entropy_share", "train_effective_tokens",
         "train_motion_correlation", "train_policy_moved", "train_clip_fraction", "train_approx_kl")
STYLE = """
body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1200px;padding:16px;color:#222;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.85rem}td,th{padding:4px 10px;border-bottom:1px solid #ddd;text-align:right}
td{white-space:nowrap}th:first-child{text-align:left;position:sticky;left:0;background:#fff}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:16px}
figure{margin:0}figcaption{font-size:.85rem;font-weight:600}svg{width:100%;height:auto}
svg text{font-size:11px;fill:#555}ul{padding-left:1.2rem}li,h2,.key{overflow-wrap:anywhere}
.key span{white-space:nowrap;margin-right:16px}.key i{display:inline-block;width:18px;height:4px;margin-right:6px;
vertical-align:middle}img{min-width:760px;max-width:100%;height:auto;margin:4px 0}
"""


class Run(NamedTuple):
    """One run: its name, the lines of log.txt, its flags by name, its newest pictures."""

    name: str
    records: list[dict]
    settings: dict
    pictures: list[Path]


def read_run(folder: Path) -> Run:
    """A run from its output folder.

    Raises:
        FileNotFoundError: no log.txt. ValueError: a line of it that is no JSON, or no line at all.
    """
    log = folder / "log.txt"
    if not log.is_file():
        raise FileNotFoundError(f"{folder} holds no log.txt: give the --output_dir of a run")
    try:
        records = [json.loads(line) for line in log.read_text().splitlines() if line.strip()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{log}: not one JSON record a line ({error})") from error
    if not records:
        raise ValueError(f"{log} is empty: the run has not finished an epoch yet")
    flags = {}
    if (folder / "settings.json").is_file():
        groups = json.loads((folder / "settings.json").read_text())["settings"]
        flags = {name: value for group in groups.values() for name, value in group.items()}
    pictures = sorted((folder / "pictures").glob("epoch-*.png"))
    epoch = pictures[-1].name.split("-")[1] if pictures else ""
    newest = [path for path in pictures if path.name.split("-")[1] == epoch]
    return Run(folder.resolve().name, records, flags, newest)


def told_apart(runs: Sequence[Run], folders: Sequence[Path]) -> list[Run]:
    """The runs, those of the same name with the folder above before it."""
    names = [run.name for run in runs]
    return [run._replace(name=f"{folder.resolve().parent.name}/{run.name}") if names.count(run.name) > 1 else run
            for run, folder in zip(runs, folders, strict=True)]


def alerts_of(run: Run) -> list[str]:
    """What the last epoch's numbers say is going wrong; nothing where the flags are not known."""
    known = {field.name: run.settings[field.name] for field in fields(SamplerConfig) if field.name in run.settings}
    return alerts(run.records[-1], SamplerConfig(**known)) if known else []


def curve(name: str, runs: Sequence[Run]) -> str:
    """One number of all runs over the epochs, as an inline SVG."""
    lines = [[(record["epoch"], record[name]) for record in run.records if name in record] for run in runs]
    points = [point for line in lines for point in line]
    xs, ys = zip(*points, strict=True)
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    labels = [(19, high), (153, low)] if high > low else [(86, low)]

    def place(x: float, y: float) -> str:
        return (f"{60 + 250 * (x - left) / ((right - left) or 1):.1f},"
                f"{150 - 135 * ((y - low) / (high - low) if high > low else 0.5):.1f}")

    drawn = "".join(
        f'<polyline fill="none" stroke="{COLOURS[i % 10]}" stroke-width="2" points="'
        + " ".join(place(*point) for point in line) + f'"><title>{escape(runs[i].name)}</title></polyline>'
        + "".join(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{COLOURS[i % 10]}"/>'
                  for x, y in (place(*point).split(",") for point in line[-1:]))
        for i, line in enumerate(lines))
    return (f'<figure><figcaption>{escape(name.removeprefix("train_"))}</figcaption><svg viewBox="0 0 320 172" '
            f'role="img"><path d="M60 15V150H310" fill="none" stroke="#bbb"/>'
            + "".join(f'<text x="55" y="{y}" text-anchor="end">{value:.3g}</text>' for y, value in labels)
            + f'<text x="60" y="167">epoch {left}</text>'
            f'<text x="310" y="167" text-anchor="end">{right}</text>{drawn}</svg></figure>')


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with a line a row; numbers to four places."""
    def cell(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else escape(str(value))

    body = "".join("<tr><th>" + "</th><td>".join(map(cell, row[:2])) + "</td>"
                   + "".join(f"<td>{cell(value)}</td>" for value in row[2:]) + "</tr>" for row in rows)
    return ('<div class="wide"><table><tr>' + "".join(f"<th>{escape(name)}</th>" for name in head)
            + f"</tr>{body}</table></div>")


def page(runs: Sequence[Run]) -> str:
    """The whole page."""
    return "".join(_parts(runs))


def _parts(runs: Sequence[Run]) -> Iterator[str]:
    numbers = {name for run in runs for record in run.records for name, value in record.items()
               if isinstance(value, int | float) and name not in ("epoch", "step")}
    order = [name for name in FIRST if name in numbers] + sorted(numbers - set(FIRST))
    names = [run.name for run in runs]
    warnings = [(run.name, message) for run in runs for message in alerts_of(run)]
    yield ('<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
           f'content="width=device-width,initial-scale=1"><title>Runs</title><style>{STYLE}</style></head><body>')
    yield f"<h1>{len(runs)} run{'s' * (len(runs) > 1)}</h1><p class='key'>"
    yield "".join(f'<span><i style="background:{COLOURS[i % 10]}"></i>{escape(n)}</span> ' for i, n in enumerate(names))
    yield "</p>"
    if warnings:
        yield "<h2>Alerts of the last epoch</h2><ul>"
        yield "".join(f"<li><b>{escape(name)}</b>: {escape(message)}</li>" for name, message in warnings) + "</ul>"
    yield "<h2>Curves</h2><div class='curves'>" + "".join(curve(name, runs) for name in order) + "</div>"
    yield "<h2>Last epoch</h2>" + table(["", *names], [
        [name.removeprefix("train_"), *(run.records[-1].get(name, "-") for run in runs)] for name in ["epoch", *order]])
    flags = sorted({name for run in runs for name in run.settings})
    differ = [[name, *(run.settings.get(name, "-") for run in runs)] for name in flags
              if len({str(run.settings.get(name)) for run in runs}) > 1]
    if differ:
        yield "<h2>Settings that differ</h2>" + table(["", *names], differ)
    for run in runs:
        if run.pictures:
            yield f"<h2>Pictures of {escape(run.name)}</h2>"
        for path in run.pictures:
            data = base64.b64encode(path.read_bytes()).decode()
            yield f'<div class="wide"><img alt="{escape(path.stem)}" src="data:image/png;base64,{data}"></div>'
    yield "</body></html>\n"


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = FlagParser("report", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folders of runs")
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page."""
    args = get_parser().parse_args(argv)
    set_up_logging(True)
    text = page(told_apart([read_run(folder) for folder in args.runs], args.runs))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text, encoding="utf-8")
    logger.info("%s, %.1f MB", args.out, len(text) / 1e6)


if __name__ == "__main__":
    run_program(main)
