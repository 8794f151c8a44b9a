"""The tables hold the paper's numbers and ours beside them."""

import csv
import io
import json
import re

import pytest
from paper_numbers import TABLE_1, TABLE_2, TABLE_3, TABLE_3C, TABLE_5, TABLE_6, TABLE_9
from table_runs import METHODS, printed, put_log, put_result
from tats.engines.tables import main, read_entries

NAMES = {"ucf101": "UCF101", "hmdb51": "HMDB51", "k400": "Kinetics-400", "ssv2": "SSv2", "videomae": "VideoMAE",
         "adamae": "AdaMAE", "tats": "TATS", "mha": "MHA", "ta": "TA", "l1_norm": "L1 loss (w norm.)",
         "l1_raw": "L1 loss (w/o norm.)", "mse_norm": "MSE loss (w norm.)", "mse_raw": "MSE loss (w/o norm.)"}
ROWS = {"3a": "{}", "3b": "{} blocks", "3d": "{}", "3e": "TA (# Blocks = {})"}
USUAL = {"3a": "ta", "3b": "4", "3d": "mse_norm", "3e": "1", "5": "10,1", "6": "1e-4,1e-4,1e-4"}   # Table 1's run
TWINS = {"1e-5,1e-5,1e-5": "1e-4,1e-4,1e-4", "1e-5,1e-4,1e-4": "1e-4,1e-3,1e-3"}
HEADS = {"top-1": ("finetune", "top1"), "top-5": ("finetune", "top5"), "memory GB": ("pretrain", "memory_gb")}


def papers_cells():
    """(table, row, column) as the paper heads them -> (the paper's number, typed from it, our run, its metric)."""
    cells = {}

    def methods(table, heads, run, numbers):
        for place, number in enumerate(numbers):
            method, head = METHODS[place // 2], ("top-1", "top-5")[place % 2]
            row, column = (part.format(method=NAMES[method], head=head) for part in heads)
            cells[table, row, column] = (number, f"{method}/{run}", HEADS[head][1])

    def errors(table, case, dataset, numbers):
        own = TWINS.get(case, case)
        other = "" if dataset == "ucf101" else f"{dataset}_"
        run = f"{dataset}_r095" if own == USUAL[table] else f"{table}_{other}{own.replace(',', '_')}"
        for place, number in enumerate(number for number in numbers if number):
            row = f"({case.replace(',', ', ')}){', printed again' * place}"
            cells[table, row, NAMES[dataset]] = (number, f"tats/pretrain_{run}", "train_fixed_error")

    for (dataset, ratio), numbers in TABLE_1.items():
        methods("1", (f"{NAMES[dataset]} {ratio}", "{method} {head}"), f"finetune_{dataset}_r0{ratio[2:]}", numbers)
    for (source, target, ratio), numbers in TABLE_2.items():
        methods("2", (f"{NAMES[source]} -> {NAMES[target]} {ratio}", "{method} {head}"),
                f"transfer_{source}_to_{target}_r0{ratio[2:]}", numbers)
    methods("9", ("{method} 0.95", "{head}"), "finetune_ssv2full_r095", TABLE_9)
    for table, cases in TABLE_3.items():
        for case, numbers in cases.items():
            run = "ucf101_r095" if case == USUAL[table] else f"{table}_{case}"
            for (head, (program, metric)), number in zip(HEADS.items(), numbers, strict=True):
                if number:
                    row = ROWS[table].format(NAMES.get(case, case))
                    cells[table, row, head] = (number, f"tats/{program}_{run}", metric)
    for method, numbers in TABLE_3C.items():
        for head, number in zip(("memory GB", "top-1"), numbers, strict=True):
            program, metric = HEADS[head]
            cells["3c", NAMES[method], head] = (number, f"{method}/{program}_ucf101_r095", metric)
    for case, (ucf101, hmdb51) in TABLE_5.items():
        errors("5", case, "ucf101", [ucf101])
        errors("5", case, "hmdb51", [hmdb51])
    for case, numbers in TABLE_6.items():
        errors("6", case, "ucf101", numbers)
    return cells


def papers_numbers():
    """(table, run, metric) -> the paper's numbers there."""
    expected = {}
    for (table_, _, _), (number, run, metric) in papers_cells().items():
        expected.setdefault((table_, run, metric), []).append(number)
    return {place: sorted(numbers) for place, numbers in expected.items()}


def by_place(entries):
    found = {}
    for entry in entries:
        found.setdefault((entry.table, entry.run, entry.metric), []).append(entry.paper)
    return {place: sorted(numbers) for place, numbers in found.items()}


def test_the_papers_numbers(tmp_path):
    entries = read_entries(tmp_path)
    assert by_place(entry for entry in entries if entry.kind == "paper") == papers_numbers()


def test_both_kinds_of_baselines_and_the_control(tmp_path):
    """Tables 1, 2, 9 and 3c: the same numbers once more beside the baselines' own scripts, none beside random masks."""
    entries, paper = read_entries(tmp_path), papers_numbers()
    own = {(table, run.replace("/", "_published/"), metric): numbers for (table, run, metric), numbers in paper.items()
           if not run.startswith("tats/")}
    assert by_place(entry for entry in entries if entry.kind == "published") == own
    control = {(table, run.replace("tats/", "random/"), metric) for table, run, metric in paper
               if run.startswith("tats/") and table in ("1", "2", "3c", "9")}
    losses = {(table, run, "train_loss") for table, run, metric in paper if metric == "train_fixed_error"}
    plain = {(table, run, "plain_memory_gb") for table, run, metric in paper if metric == "memory_gb"}
    beside = [entry for entry in entries if entry.kind == "beside"]
    assert {(entry.table, entry.run, entry.metric) for entry in beside} == control | losses | plain
    assert {entry.paper for entry in beside} == {None}


def test_a_tree_of_every_run(tmp_path, capsys):
    """Each run leaves numbers of its own; every cell must show those of its run, whatever the seed."""
    expected, runs = {}, sorted({(entry.run, entry.metric) for entry in read_entries(tmp_path)})
    for place, run in enumerate(sorted({run for run, _ in runs})):
        for suffix, more in (("", 0.0), ("__seed=1", 0.5)):
            if "/pretrain_" in run:
                (tmp_path / (run + suffix)).mkdir(parents=True)
                line = {"epoch": 399, "peak_memory_gb": place + more, "train_fixed_error": place / 1000 + more,
                        "train_loss": place / 500 + more}
                (tmp_path / (run + suffix) / "log.txt").write_text(json.dumps({**line, "epoch": 398,
                                                                               "train_loss": 9.0}) + "\n"
                                                                   + json.dumps(line) + "\n")
                (tmp_path / (run + suffix) / "finished").touch()
                if (run, "plain_memory_gb") in runs:
                    put_log(tmp_path, f"{run}__plain_attention=true{suffix}", place + more + 50)
            else:
                put_result(tmp_path, run + suffix, place / 4 + more, place / 2 + more)
        expected |= {(run, "memory_gb"): place + .25, (run, "train_fixed_error"): place / 1000 + .25,
                     (run, "plain_memory_gb"): place + 50.25,
                     (run, "train_loss"): place / 500 + .25, (run, "top1"): place / 4 + .25,
                     (run, "top5"): place / 2 + .25}
    entries = read_entries(tmp_path)
    for entry in (entry for entry in entries if entry.kind != "variant"):
        mean = expected[entry.run, entry.metric]
        assert (entry.ours, entry.seeds, entry.complete) == (pytest.approx(mean), 2, True), entry
        if "memory" in entry.metric:   # its largest, of which the difference would mean nothing
            assert entry.difference is None
    out = printed(capsys, tmp_path, "--require")
    assert out[0] == 0 and "not run" not in out[1] and "keeps no N x N weights" in out[1]
    assert all(f"Table {name}" in out[1] for name in ("1:", "2:", "3a", "3b", "3c", "3d", "3e", "5:", "6:", "9:"))


def printed_cells(text):
    """(table, row, column) -> what stands in each cell of the Markdown; a twin of Table 6 under its own name."""
    cells = {}
    for part in text.split("**Table ")[1:]:
        heads, _, *rows = [[cell.replace("@", "|").strip() for cell in line.replace(r"\|", "@").split("|")[1:-1]]
                           for line in part.splitlines() if line.startswith("|")]
        for row, *numbers in rows:
            cells |= {(part.split(":")[0], re.sub(r"\) = .*", ")", row), head): number
                      for head, number in zip(heads[1:], numbers, strict=True)}
    return cells


def test_every_number_of_the_paper_is_printed_in_its_place(tmp_path, capsys):
    """Under the paper's heads of row and column; beside it ours, of the run that belongs there. Every run has numbers
    of its own here."""
    ours = {}
    for place, (run, metric) in enumerate(sorted({(entry.run, entry.metric) for entry in read_entries(tmp_path)})):
        ours[run, metric] = place / 8
        folder = tmp_path / (f"{run}__plain_attention=true" if metric == "plain_memory_gb" else run)
        path = folder / ("result.json" if metric.startswith("top") else "log.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(path.read_text()) if path.exists() else {"num_expected": 1, "num_evaluated": 1, "epoch": 0}
        name = "peak_memory_gb" if "memory" in metric else metric
        path.write_text(json.dumps(known | {name: ours[run, metric]}) + "\n")
        (path.parent / "finished").touch()
    cells = printed_cells(printed(capsys, tmp_path, "--format", "markdown")[1].split("**Runs with other flags")[0])
    paper = papers_cells()
    assert len(paper) == 72 + 90 + 41 + 17 + 9 + 6   # Tables 1, 2, 3a to 3e, 5, 6, 9
    for place, (number, run, metric) in paper.items():
        digits = 4 if metric == "train_fixed_error" else 2
        shown = cells[place].split(" | ")
        assert shown[:2] == [f"{number:.{digits}f}", f"{ours[run, metric]:.{digits}f}"], place
        assert len(shown) == (2 if metric == "memory_gb" else 3), place   # no bare difference of memories
    beside = [place for place in cells if place not in paper and cells[place]]
    words = ("(own scripts)", "(not in the paper)", "training loss", "plain attention")
    assert {next(word for word in words if word in " ".join(place)) for place in beside} == set(words)
    # The baselines' own scripts and random in Tables 1, 2, 3c, 9; losses; memory.
    assert len(beside) == 72 + 90 + 6 + 6 + 26 + 12
    assert all(len(cells[place].split(" | ")) == 1 for place in beside if "plain attention" in place[2])


def test_a_pretraining_that_goes_on_is_marked(tmp_path, capsys):
    folder = tmp_path / "tats/pretrain_5_0_1"
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text('{"epoch": 3, "train_fixed_error": 0.61234, "train_loss": 0.5}\n')
    out = printed(capsys, tmp_path, "--tables", "5")[1]
    assert "0.5211 | 0.6123* | +0.0912" in out and "has not ended" in out and " 0.5000*" in out
    assert "train_fixed_error of the last epoch" in out


def test_text(tmp_path, capsys):
    put_result(tmp_path, "tats/finetune_ssv2full_r095", 66.0, 88.25)
    put_result(tmp_path, "adamae/finetune_ssv2full_r095", 60.0, 86.0, evaluated=9)
    put_result(tmp_path, "videomae_published/finetune_ssv2full_r095", 59.0, 84.0)
    put_result(tmp_path, "random/finetune_ssv2full_r095", 61.0, 85.0)
    assert printed(capsys, tmp_path, "--tables", "9") == (0, """\
Table 9: the whole of SSv2 (paper | ours | difference)
                                top-1                   top-5
VideoMAE 0.95                   59.38 | not run         84.17 | not run
AdaMAE 0.95                     63.06 | 60.00* | -3.06  85.89 | 86.00* | +0.11
TATS 0.95                       65.82 | 66.00 | +0.18   88.50 | 88.25 | -0.25
VideoMAE (own scripts) 0.95     59.38 | 59.00 | -0.38   84.17 | 84.00 | -0.17
AdaMAE (own scripts) 0.95       63.06 | not run         85.89 | not run
random (not in the paper) 0.95  61.00                   85.00

* not every video of the test list was evaluated, or the run has not ended
""")


def test_markdown_and_memory(tmp_path, capsys):
    put_log(tmp_path, "videomae/pretrain_ucf101_r095", 20.5, 21.04, 20.0)
    put_result(tmp_path, "videomae/finetune_ucf101_r095", 65.86, 89.0)
    out = printed(capsys, tmp_path, "--tables", "3c", "--format", "markdown")[1].splitlines()
    heads = ["memory GB", "top-1", "memory GB, plain attention"]
    assert [cell.strip() for cell in out[2].split("|")[2:-1]] == heads and set(out[3]) == set("|:-")
    assert re.sub(" +", " ", out[4]) == r"| VideoMAE | 20.94 \| 21.04 | 65.86 \| 65.86 \| +0.00 | not run |"
    assert "the two cannot be compared" in "\n".join(out)


def test_csv(tmp_path, capsys):
    put_result(tmp_path, "adamae/transfer_k400_to_ssv2_r090", 40.0, 60.0)
    rows = list(csv.DictReader(io.StringIO(printed(capsys, tmp_path, "--tables", "2", "--format", "csv")[1])))
    assert len(rows) == 15 * (6 + 4 + 2)
    (row,) = [row for row in rows if row["ours"] and row["metric"] == "top1"]
    assert (row["row"], row["paper"], row["ours"], row["difference"]) == ("Kinetics-400 -> SSv2 0.90", "36.62", "40.00",
                                                                          "+3.38")
    assert row["complete"] == "True" and {row["complete"] for row in rows if not row["ours"]} == {""}


def test_our_recipe_fills_the_column_of_tats_alone(tmp_path):
    put_result(tmp_path, "tats_ours/finetune_ucf101_r095", 90.0, 99.0)
    put_result(tmp_path, "videomae/finetune_ucf101_r095", 70.0, 90.0)
    entries = read_entries(tmp_path, ["1"], recipe="ours")
    assert sorted(entry.ours for entry in entries if entry.ours) == [70.0, 90.0, 90.0, 99.0]
    assert [entry.ours for entry in read_entries(tmp_path, ["1"]) if entry.ours] == [70.0, 90.0]


def test_require_fails_until_every_row_is_there(tmp_path, capsys):
    for method in METHODS[:2]:
        put_result(tmp_path, f"{method}/finetune_ssv2full_r095", 1.0, 2.0)
    assert main([str(tmp_path), "--tables", "9", "--require"]) == 1
    assert capsys.readouterr().err == ("error: 2 of 6 numbers are missing, of the runs "
                                       "tats/finetune_ssv2full_r095\n")
    put_result(tmp_path, "tats/finetune_ssv2full_r095", 1.0, 2.0)
    assert main([str(tmp_path), "--tables", "9", "--require"]) == 0


@pytest.mark.parametrize("text", ["{", "{}", '{"top1": null}', "[]", '{"top1": 1.0, "top5": 2.0}'])
def test_damaged_results_are_named(tmp_path, text):
    put_result(tmp_path, "tats/finetune_ssv2full_r095", 1.0, 2.0)
    (tmp_path / "tats/finetune_ssv2full_r095/result.json").write_text(text)
    with pytest.raises(ValueError, match="tats/finetune_ssv2full_r095/result.json"):
        read_entries(tmp_path, ["9"])


@pytest.mark.parametrize("text", ["{", "[]", '{"epoch": 1, "peak_memory_gb": "much"}'])
def test_damaged_logs_are_named(tmp_path, text):
    put_log(tmp_path, "videomae/pretrain_ucf101_r095", 1.0)
    lines = '{"epoch": 0, "peak_memory_gb": 1.0}\n' + text + "\n"
    (tmp_path / "videomae/pretrain_ucf101_r095/log.txt").write_text(lines)
    with pytest.raises(ValueError, match=r"pretrain_ucf101_r095/log.txt(, line 2: not a JSON| is not a log)"):
        read_entries(tmp_path, ["3c"])


def test_the_log_of_a_run_that_was_killed_ends_in_a_torn_line(tmp_path, caplog):
    """Its other lines count, and the tables of all other runs are printed."""
    put_log(tmp_path, "videomae/pretrain_ucf101_r095", 3.0)
    with open(tmp_path / "videomae/pretrain_ucf101_r095/log.txt", "a") as file:
        file.write('{"epoch": 7, "peak_mem')
    found = [entry.ours for entry in read_entries(tmp_path, ["3c"]) if entry.run == "videomae/pretrain_ucf101_r095"]
    assert 3.0 in found and "torn" in caplog.text


def test_a_folder_without_runs_says_what_is_looked_for(tmp_path, capsys):
    main([str(tmp_path), "--tables", "9"])
    assert f"as METHOD/NAME, such as {tmp_path}/videomae/finetune_ssv2full_r095" in capsys.readouterr().err.replace(
        "tats/finetune", "videomae/finetune")


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        main([str(tmp_path / "none")])


def test_several_seeds_are_a_mean_and_other_flags_stand_apart(tmp_path, capsys):
    """66, 67, 71: mean 68, deviation sqrt((4 + 1 + 9) / 2) = 2.65."""
    run = "tats/finetune_ssv2full_r095"
    for suffix, top1 in (("", 66.0), ("__seed=1", 67.0), ("__seed=12", 71.0)):
        put_result(tmp_path, run + suffix, top1, 88.5)
    put_result(tmp_path, f"{run}__lr=0.01", 1.0, 2.0)
    for seed, top1 in ((1, 10.0), (2, 20.0)):
        put_result(tmp_path, f"{run}__from_lr=0.01__lr=0.01__seed={seed}", top1, 30.0)
    assert printed(capsys, tmp_path, "--tables", "9")[1].split("\n", 4)[4] == """\
TATS 0.95                       65.82 | 68.00 ± 2.65 (3) | +2.18  88.50 | 88.50 ± 0.00 (3) | +0.00
VideoMAE (own scripts) 0.95     59.38 | not run                   84.17 | not run
AdaMAE (own scripts) 0.95       63.06 | not run                   85.89 | not run
random (not in the paper) 0.95  not run                           not run

Runs with other flags than their row's
                                                    top1              top5
tats/finetune_ssv2full_r095__from_lr=0.01__lr=0.01  15.00 ± 7.07 (2)  30.00 ± 0.00 (2)
tats/finetune_ssv2full_r095__lr=0.01                1.00              2.00

ours: mean ± standard deviation (number of seeds)
"""
    rows = list(csv.DictReader(io.StringIO(printed(capsys, tmp_path, "--tables", "9", "--format", "csv")[1])))
    assert [(row["run"], row["ours"], row["seeds"], row["deviation"], row["paper"]) for row in rows
            if row["metric"] == "top1" and row["ours"]] == [
        (run, "68.00", "3", "2.65", "65.82"),
        (f"{run}__from_lr=0.01__lr=0.01", "15.00", "2", "7.07", ""), (f"{run}__lr=0.01", "1.00", "1", "", "")]


def test_memory_with_plain_attention_stands_in_a_column_of_its_own(tmp_path, capsys):
    """Of short runs with that flag, never of runs with another one that changes the memory; no difference beside it."""
    run = "tats/pretrain_3b_2"
    put_log(tmp_path, run, 7.0)
    put_log(tmp_path, f"{run}__plain_attention=true__epochs=2__mae_only_epochs=1", 9.0, 12.5)
    put_log(tmp_path, f"{run}__batch_size=64__plain_attention=true", 99.0)
    _, out = printed(capsys, tmp_path, "--tables", "3b", "--format", "csv")
    lines = [line for line in csv.DictReader(io.StringIO(out)) if line["kind"] != "variant"]
    rows = {(line["row"], line["column"]): line for line in lines}
    assert rows["2 blocks", "memory GB"]["ours"] == "7.00" and rows["2 blocks", "memory GB"]["difference"] == ""
    plain = rows["2 blocks", "memory GB, plain attention"]
    assert (plain["ours"], plain["paper"], plain["difference"]) == ("12.50", "", "")
    assert rows["8 blocks", "memory GB, plain attention"]["ours"] == ""
    _, out = printed(capsys, tmp_path, "--tables", "3b")
    assert "--plain_attention true" in out and "memory GB, plain attention" in out
