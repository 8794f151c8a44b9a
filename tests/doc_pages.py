"""Read the Markdown pages: blocks, commands, links, anchors, tables; hold the commands against their programs."""

import argparse
import importlib
import importlib.util
import re
import shlex
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from dry_runs import run_script

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")),
         *sorted((ROOT / "run_scripts/results").glob("*.md"))]
BLOCK = re.compile(r"^(?P<run><!-- run -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
OPERATORS = {"&&", "||", "|", ";", "(", ")", "&"}
SHELL_WORDS = {"cat", "cd", "echo", "export", "find", "mkdir", "sort", "source"}
DRY = re.compile(r"(pretrain|finetune|transfer|ablation|row|figures|table|slurm)\w*\.sh")   # take DRY_RUN=1
NEEDED = ("--data", "x", "--out", "x", "--pretrain", "x", "--finetune", "x")   # compare_moving_shapes.sh gives these


class Block(NamedTuple):
    """A fenced block: its language, its text, and whether `<!-- run -->` stands on the line before it."""

    language: str
    text: str
    runs: bool


def blocks(page):
    """The fenced blocks of a page's text."""
    return [Block(found["language"], found["text"], bool(found["run"])) for found in BLOCK.finditer(page)]


def prose(page):
    """A page's text without its fenced blocks."""
    return BLOCK.sub("", page)


def commands(text):
    """The simple commands of a bash block as lists of words, redirections left out."""
    for line in text.replace("\\\n", " ").splitlines():
        reader = shlex.shlex(line, posix=True, punctuation_chars=True)
        reader.whitespace_split = True
        words, redirected = [], False
        for word in [*reader, ";"]:
            if word in OPERATORS:
                if words:
                    yield words
                words = []
            elif redirected or word in (">", ">>", "<"):
                redirected = not redirected
            else:
                words.append(word)


def check_command(words):
    """Raises AssertionError: the command cannot run as it stands in the page."""
    environment = {}
    while words and re.match(r"[A-Z_]+=", words[0]):
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    if words[:2] == ["python", "-m"] or words[0] == "torchrun":
        place = words.index("-m") + 1
        check_module(words[place], words[place + 1:])
    elif words[0] == "python" and words[1].endswith(".py"):
        text = (ROOT / words[1]).read_text()
        for word in words[2:]:
            assert not word.startswith("--") or f'"{word}"' in text, f"{words[1]} does not know {word}"
    elif words[0] == "bash" or words[0].startswith("run_scripts/"):
        path, *arguments = words[words[0] == "bash":]
        check_script(path, arguments, environment)
    elif words[0] == "pip":
        check_extras(re.findall(r"\.\[([\w,]+)\]", " ".join(words)))
    else:
        assert words[0] in SHELL_WORDS, f"{words[0]} is no command that is known here"


def check_module(name, arguments):
    """A program of ours parses its arguments; pytest finds its files."""
    if name in ("ruff", "pytest"):
        for word in arguments:
            assert not word.startswith("tests/") or (ROOT / word).exists(), f"{word} does not exist"
        return
    assert importlib.util.find_spec(name), f"no module {name}"
    parse(name, arguments)


class Parsed(Exception):
    """The arguments were accepted; the program need not go on."""


def parse(name, arguments):
    """Read the arguments with the parser of the program `name`.

    Raises:
        AssertionError: it refuses them.
    """
    program = importlib.import_module(name)
    if hasattr(program, "__path__"):
        program = importlib.import_module(f"{name}.__main__")
    original = argparse.ArgumentParser.parse_args

    def parse_only(parser, *_):
        original(parser, arguments)
        raise Parsed

    with mock.patch.object(argparse.ArgumentParser, "parse_args", parse_only):
        try:
            program.main()
        except Parsed:
            return
        except SystemExit as refused:
            assert refused.code == 0, f"python -m {name} does not take {shlex.join(arguments)}"


def check_script(path, arguments, environment):
    """A script of run_scripts is there and takes its options."""
    script = ROOT / path
    assert script.is_file(), f"{path} does not exist"
    if DRY.fullmatch(script.name):
        settings = {"DATA_ROOT": "/data", "PYTHON": "python", "GPUS": "8"} | environment | {"DRY_RUN": "1"}
        words = [word for word in arguments if word != "--explain"]   # printed by a program: the command is what counts
        done = run_script(script.name, *words, **settings)
        assert done.returncode == 0, f"{path}: {done.stderr.strip()}"
        for line in done.stdout.splitlines() if script.name != "slurm.sh" else []:
            words = shlex.split(line)
            place = next(index for index, word in enumerate(words) if word.startswith("tats."))
            parse(words[place], words[place + 1:])
    elif script.name == "rehearse.sh":
        assert len(arguments) == 1 and (script.parent / f"pretrain_{arguments[0]}.sh").is_file(), arguments
    elif script.name == "setup_env.sh":
        check_extras(arguments)
    elif script.name == "test.sh":
        check_module("pytest", arguments)
    else:
        rest = _without_own_options(script.read_text(), arguments)
        if script.name == "compare_moving_shapes.sh":
            parse("tats.engines.compare_masks", [*NEEDED, *rest])
        elif script.name == "compare_real_clips.sh":
            parse("tats.engines.compare_clips", [*rest, *NEEDED[2:]])   # all but --data
        else:
            assert not rest, f"{path} does not know {rest}"


def _without_own_options(text, arguments):
    """The words of `arguments` that are no option, with its value, of a script's `case`."""
    taken = {option: f"{option}) " not in line or "shift 2" in line
             for line in text.splitlines() if re.match(r"\s+(-h \| )?--", line)
             for option in re.findall(r"--[a-z_]+", line.split(")")[0])}
    rest, words = [], list(arguments)
    while words:
        word = words.pop(0)
        if word not in taken:
            rest.append(word)
        elif taken[word]:
            assert words, f"{word} needs a value"
            words.pop(0)
    return rest


def check_extras(lists):
    """Every extra of `a,b` is one of setup.py."""
    known = re.findall(r'^        "(\w+)": \[', (ROOT / "setup.py").read_text(), re.MULTILINE)
    for extra in ",".join(lists).split(","):
        assert not extra or extra in known, f"setup.py has no extra {extra!r}, only {known}"


def anchors(page):
    """The anchors that GitHub gives the headings of a page."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE)}


def broken_links(path, text):
    """Relative links of a page whose file, or whose anchor in a page, does not exist."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        if not file.exists() or anchor and anchor not in anchors(text if file == path else file.read_text()):
            yield target


def torn_rows(text):
    """Rows of a page's tables that have more or fewer cells than their head."""
    cells = None
    for line in prose(text).splitlines():
        if not line.startswith("|"):
            cells = None
            continue
        count = len(re.findall(r"(?<!\\)\|", line))
        cells = cells or count
        if count != cells:
            yield line
