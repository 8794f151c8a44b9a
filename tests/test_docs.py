"""The README and the pages stay true: commands parse, code compiles and runs, links resolve, names exist."""

import csv
import functools
import importlib
import importlib.util
import json
import re
import statistics
import subprocess
import sys

import pytest
from doc_pages import (
    PAGES,
    ROOT,
    anchors,
    blocks,
    broken_links,
    check_command,
    commands,
    prose,
    torn_rows,
)
from tats.engines import flag_table
from tats.engines.config.pretraining import SamplerConfig, resolve_recipe
from tats.engines.core.metrics import metrics_markdown
from tats.engines.pretrain.alerts import alerts

README = (ROOT / "README.md").read_text()
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in PAGES}
GUIDE = {name: text for name, text in TEXTS.items() if name == "README.md" or name.startswith("docs/")}
COMMANDS = [(name, words) for name, text in TEXTS.items() for block in blocks(text) if block.language == "bash"
            for words in commands(block.text)]


def test_readme_is_a_short_page():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize(("name", "words"), COMMANDS,
                         ids=lambda value: value if isinstance(value, str) else " ".join(value)[:70])
def test_a_command_of_the_pages_is_what_its_program_takes(name, words, monkeypatch):
    monkeypatch.chdir(ROOT)   # for @run_scripts/settings/FILE
    monkeypatch.setattr(sys, "argv", ["a page"])
    monkeypatch.setattr("tats.engines.config.flags.load_plugins", lambda names: None)   # files of the reader's own
    check_command(list(words))


@pytest.mark.parametrize("command", [
    "python -m tats.engines.run_mae_pretraining --data_path a.csv --mask_rat 0.9",
    "python -m tats.engines.run_mae_pretraining --data_path a.csv --tats_recipe theirs",
    "python -m tats.engines.measure_masks --checkpoint a.pth",   # lacks --data
    "python -m tats.datasets.moving_shapes --out a --tests 3",
    "torchrun --nproc_per_node=2 -m tats.engines.run_class_finetuning @run_scripts/settings/none.args",
    "python -m tats.engines.run_pretraining",
    "python -m pytest tests/test_none.py",
    "bash run_scripts/pretrain_ucf101_r099.sh",
    "DRY_RUN=1 bash run_scripts/ablation_5.sh 10,2",
    "bash run_scripts/pretrain_ucf101_r095.sh --seeds 1",
    "bash run_scripts/demo.sh --short",
    "bash run_scripts/demo.sh --seed",
    "bash run_scripts/compare_moving_shapes.sh --size small --method tats",
    "bash run_scripts/setup_env.sh develop",
    'pip install -e ".[gpu]"',
    "tats-train --data a.csv",
])
def test_a_stale_command_is_found(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    (words,) = commands(command)
    with pytest.raises(AssertionError):
        check_command(words)


def test_commands_are_split_as_a_shell_would():
    assert list(commands("A=1 x 'b c' \\\n  --d && (y; z > out)   # no\n\nlast")) == [
        ["A=1", "x", "b c", "--d"], ["y"], ["z"], ["last"]]


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items()
                                  if any(block.language == "python" for block in blocks(text))])
def test_python_compiles(name):
    for block in blocks(TEXTS[name]):
        if block.language == "python":
            compile(block.text, name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if any(block.runs for block in blocks(text))])
def test_python_that_is_marked_runs(name, tmp_path):
    script = tmp_path / "page.py"
    script.write_text("\n".join(block.text for block in blocks(TEXTS[name]) if block.runs))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_resolve(path):
    assert not list(broken_links(path, path.read_text()))


def test_a_broken_link_is_found():
    text = "# A b: `c_d`\n[here](#a-b-c_d) [file](LICENSE) [page](docs/flags.md#all-flags) [web](https://x.y/#z)\n"
    assert anchors(text) == {"a-b-c_d"}
    assert not list(broken_links(ROOT / "README.md", text))
    broken = ["#a-b", "LICENCE", "docs/flags.md#none"]
    assert list(broken_links(ROOT / "README.md", text + " ".join(f"[x]({link})" for link in broken))) == broken


def test_every_page_is_reached_from_the_readme():
    linked = set(re.findall(r"\]\((docs/\w+\.md)", README))
    assert linked == {name for name in TEXTS if name.startswith("docs/")}


def test_flags_page_is_the_generated_one():
    assert TEXTS["docs/flags.md"] == flag_table.page(), "run python -m tats.engines.flag_table > docs/flags.md"


@pytest.mark.parametrize("name", TEXTS)
def test_rows_of_a_table_have_the_cells_of_its_head(name):
    assert not list(torn_rows(TEXTS[name]))


def test_a_torn_row_is_found():
    whole = "| a | b |\n|---|---|\n| `x\\|y` | 1 |\n"
    assert list(torn_rows(whole + "| `x|y` | 1 |\n\n| a |\n|---|\n")) == ["| `x|y` | 1 |"]


def spans(text):
    """What stands in backticks in a page's text."""
    return re.findall(r"`([^`\n]+)`", prose(text))


@functools.cache
def known_flags():
    """Every option of every program, and those of other tools and of the scripts that the pages name."""
    found = {"--fork", "--long", "--nproc_per_node", "--help"}
    found |= set(re.findall(r'"(--\w+)"', (ROOT / "tests/mutation/run.py").read_text()))
    for path in [*ROOT.glob("engines/*.py"), *ROOT.glob("engines/*/__main__.py"), *ROOT.glob("datasets/*.py"),
                 *ROOT.glob("models/*.py")]:
        if "def get_parser" in path.read_text():
            module = importlib.import_module(".".join(("tats", *path.relative_to(ROOT).with_suffix("").parts)))
            found |= set(re.findall(r"--\w+", module.get_parser().format_help()))
    return found


@pytest.mark.parametrize("name", GUIDE)
def test_named_flags_exist(name):
    named = {flag for span in spans(GUIDE[name]) for flag in re.findall(r"(?<![\w-])--[a-z]\w+", span)}
    known = known_flags()
    assert not {flag for flag in named if flag not in known and flag.replace("--no_", "--") not in known}


FILE = re.compile(r"(models|masking|datasets|engines|run_scripts|tests|docs)/[\w./*]+\.(py|sh|args|md|csv|png)")


def names_something(dotted):
    """Whether a dotted name is a module, or something in one."""
    module, _, last = dotted.rpartition(".")
    try:
        return importlib.util.find_spec(dotted) is not None or hasattr(importlib.import_module(module), last)
    except ModuleNotFoundError:   # what stands before the last dot is no package
        return importlib.util.find_spec(module) is not None and hasattr(importlib.import_module(module), last)


@pytest.mark.parametrize("name", [name for name in TEXTS if name != "CHANGELOG.md"])   # which names what was, too
def test_named_files_and_modules_exist(name):
    for span in spans(TEXTS[name]):
        assert not FILE.fullmatch(span) or list(ROOT.glob(span)), f"{span} does not exist"
        for dotted in re.findall(r"(?<![\w/])tats(?:\.\w+)+", span):
            assert names_something(dotted), f"{dotted} does not exist"


def test_names_that_do_not_exist_are_found():
    assert names_something("tats.engines.pretrain.ppo") and names_something("tats.masking.MASKINGS")
    assert not names_something("tats.engines.ppo") and not names_something("tats.masking.registry.MASKS")


def mean(values, digits):
    """As the pages write it: without a 0 before the point."""
    return f"{statistics.mean(values):.{digits}f}".removeprefix("0")


def deviation(values, digits):
    """The standard deviation likewise."""
    return f"{statistics.stdev(values):.{digits}f}".removeprefix("0")


def test_the_evidence_is_what_the_table_of_the_comparison_says():
    with open(ROOT / "run_scripts/results/moving_shapes.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["mask_ratio"] == "0.9"]
    for label, method in (("random", "random"), ("tube", "tube"), ("AdaMAE", "adamae"), ("TATS", "tats")):
        cells = [[float(row[name]) for row in rows if row["method"] == method]
                 for name in ("moving_auroc", "enrichment", "linear_motion", "finetune_motion")]
        auroc = ".500" if method in ("random", "tube") else f"{mean(cells[0], 3)} ± {deviation(cells[0], 3)}"
        line = " | ".join([label, auroc, *(f"{mean(cell, digits)} ± {deviation(cell, digits)}"
                                           for cell, digits in zip(cells[1:], (2, 1, 1), strict=True))])
        for name in ("README.md", "docs/evidence.md"):
            assert f"| {line} |" in TEXTS[name], line


@pytest.mark.parametrize("page", sorted(one.name for one in (ROOT / "docs").glob("*.md")))
def test_every_page_leads_back_to_the_readme(page):
    assert "[Back to the README](../README.md)" in TEXTS[f"docs/{page}"].splitlines()


def test_the_table_of_numbers_is_current():
    text = TEXTS["docs/monitoring.md"]
    assert text.split("<!-- metrics -->\n")[1].split("\n<!-- /metrics -->")[0] == metrics_markdown(), \
        "put the output of tats.engines.core.metrics.metrics_markdown() between the markers"


def test_every_number_of_the_log_is_explained():
    lines = (ROOT / "tests/data/demo_log.txt").read_text().splitlines()
    logged = {name.removeprefix("train_") for line in lines for name in json.loads(line)}
    logged |= {"ppo_passes", "peak_memory_gb"}
    assert not logged - set(spans(TEXTS["docs/monitoring.md"]))


def test_every_alert_is_on_the_page():
    records = [{"reward_std": 0.0}, {"effective_tokens": 1, "visible_tokens": 2},
               {"entropy_share": .5, "policy_moved": 0}, {"entropy_share": 1, "policy_moved": 1},
               {"value_explained_variance": -1}, {"clip_fraction": 0}, {"clip_fraction": 1},
               {"coverage_frame_min": 0, "coverage_frame_max": 1}, {"data_share": 1}]
    config = resolve_recipe(SamplerConfig(tats_recipe="paper", ppo_epochs=3))
    found = [message for record in records for message in alerts(record, config)]
    heads = [re.sub(r"^[\d.]+% of ", "", re.split(r"[:(]", message)[0]).strip() for message in found]
    table = TEXTS["docs/monitoring.md"].split("## Alerts")[1].split("\n##")[0]
    listed = re.findall(r"^\| ([^`|]+?) \| ", table, re.MULTILINE)[1:]
    assert heads == listed


def test_the_recipe_is_the_one_of_the_page():
    ours, paper = (resolve_recipe(SamplerConfig(tats_recipe=recipe)) for recipe in ("ours", "paper"))
    differ = {name for name, value in vars(ours).items() if value != getattr(paper, name)} - {"tats_recipe"}
    section = TEXTS["docs/algorithm.md"].split("## Two recipes")[1].split("The same in both recipes")[0]
    assert differ == {"sampler_lr", "entropy_coef", "ppo_ratio", "ppo_weighting", "adv_norm", "tats_approx"}
    assert {f"--{name}" for name in differ} <= set(spans(section))
