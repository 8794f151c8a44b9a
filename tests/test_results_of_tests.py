"""A test of a training's weights: its result goes where no other result is lost."""

import json
import logging
import shutil

import pytest
from tats.engines.run_class_finetuning import main as finetune
from tiny_runs import finetuning_flags, names

KEEP = ("--save_ckpt_freq", "1", "--keep_last", "0")


@pytest.fixture(scope="module")
def finetuned(shapes, tmp_path_factory):
    """A run of two epochs, and its result."""
    out = tmp_path_factory.mktemp("finetuned") / "out"
    return out, finetune(finetuning_flags(shapes, out, *KEEP, "--model_ema"))


@pytest.fixture(autouse=True)
def messages(caplog):
    caplog.set_level(logging.INFO)


@pytest.fixture
def tested(finetuned, shapes, tmp_path):
    """(folder of a training, a function that tests in it)."""
    out = tmp_path / "out"
    shutil.copytree(finetuned[0], out)
    return out, lambda *more: finetune(finetuning_flags(shapes, out, "--eval", *more))


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_another_test_does_not_take_the_place_of_the_trainings_result(tested, finetuned, caplog):
    out, test = tested
    before = {name: (out / name).read_bytes() for name in ("result.json", "predictions.csv", "confusion.csv")}
    assert test() == finetuned[1]   # the very test: the same numbers in the same place
    for number, more in enumerate((("--test_num_segment", "3"), ("--test_weights", "ema"),
                                   ("--resume", str(out / "checkpoint-0.pth"))), start=1):
        found = test(*more)
        assert found == test(*more) == result_of(out / f"evaluation-{number}")   # once more: in the same place
        assert f"the result goes to evaluation-{number}" in caplog.text
    assert before == {name: (out / name).read_bytes() for name in before}
    assert result_of(out / "evaluation-3")["trained_epochs"] == 1
    assert not (out / "evaluation-4").exists()


def test_a_training_without_a_result_gets_its_own_test_alone(tested):
    out, test = tested
    (out / "result.json").unlink()
    test("--test_weights", "ema")
    test("--resume", str(out / "checkpoint-0.pth"))
    assert not (out / "result.json").exists() and {"evaluation-1", "evaluation-2"} <= names(out)
    test()
    assert result_of(out)["trained_epochs"] == result_of(out)["epochs"] == 2


def test_tests_of_another_list(tested, shapes, tmp_path):
    out, test = tested
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "test.csv").write_text("".join((shapes / "test.csv").read_text().splitlines(keepends=True)[:4]))
    before = (out / "result.json").read_bytes()
    test("--data_path", str(lists))
    assert (out / "result.json").read_bytes() == before and result_of(out / "evaluation-1")["num_expected"] == 4


def test_elsewhere_another_tests_result_is_kept(finetuned, shapes, tmp_path):
    out = tmp_path / "tests"
    for segments in ("1", "2", "2"):
        finetune(finetuning_flags(shapes, out, "--eval", "--finetune", str(finetuned[0] / "checkpoint-1.pth"),
                                  "--test_num_segment", segments))
    assert result_of(out)["views"]["segments"] == 2 and result_of(out / "replaced-1")["views"]["segments"] == 1
    assert not (out / "replaced-2").exists()
