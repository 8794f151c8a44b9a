"""Shared fixtures: a small set of real .mp4 files, and the folder of given clips where there is one."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--fork", default=None, metavar="PATH", help="a clone of MCG-NJU/VideoMAE, for test_real_fork.py")


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """A folder of moving shapes: 24 train, 8 val and 8 test videos with their lists and truth."""
    from tats.datasets.moving_shapes import ShapesConfig, write_moving_shapes

    folder = tmp_path_factory.mktemp("shapes")
    write_moving_shapes(ShapesConfig(folder, (24, 8, 8)), workers=1, progress=False)
    return folder


@pytest.fixture(scope="session")
def given():
    """The folder of given data (clips, golden values); tests that need it are skipped without."""
    folder = Path(os.environ.get("TATS_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "clips").is_dir():
        pytest.skip("no folder of given clips (TATS_SHARED)")
    return folder
