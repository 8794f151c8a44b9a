"""The README stays true: its flag table is generated, the files and modules that it names exist."""

import importlib.util
import re
from pathlib import Path

from tats.engines.flag_table import table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_flag_table_is_the_generated_one():
    shown = README.split("<!-- flags -->")[1].split("<!-- /flags -->")[0]
    assert shown.strip() == table().strip(), "write the output of python -m tats.engines.flag_table into README.md"


def test_named_files_and_modules_exist():
    for name in set(re.findall(r"run_scripts/[\w./]+\.(?:sh|png|args)", README)):
        assert (ROOT / name).is_file(), name
    for module in set(re.findall(r"python -m (tats[\w.]+)", README)):
        assert importlib.util.find_spec(module), module
