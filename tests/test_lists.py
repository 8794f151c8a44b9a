"""List files: separators, spaces, headers, labels that may be missing, and what is said about bad rows."""

import re
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tats.datasets.lists.list_file import ClipList, Paths, read_list, scan_list

# The same examples every time, however busy the machine.
REPEATABLE = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow]}


def written(tmp_path, text, name="train.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("separator", [" ", "  ", "\t", ",", ", ", ";"])
def test_every_separator_splits_from_the_right(tmp_path, separator):
    text = f"/data/my videos/a, b.mp4{separator}3\n/data/c.avi{separator}0\n"
    rows = read_list(written(tmp_path, text), num_classes=4)
    assert list(rows.paths) == ["/data/my videos/a, b.mp4", "/data/c.avi"]
    assert rows.labels.tolist() == [3, 0]
    assert rows.lines.tolist() == [1, 2]
    assert len(rows) == 2


def test_header_blank_lines_quotes_and_byte_order_mark(tmp_path):
    text = "\ufeffvideo_path,label\r\n\r\n\"/data/a, \"\"b\"\".mp4\",7\r\n/data/c.mp4,1\r\n"
    rows = read_list(written(tmp_path, text))
    assert list(rows.paths) == ['/data/a, "b".mp4', "/data/c.mp4"]
    assert rows.labels.tolist() == [7, 1]
    assert rows.lines.tolist() == [3, 4]


def test_labels_may_be_missing_for_pretraining_only(tmp_path):
    path = written(tmp_path, "/data/with space.mp4\n/data/b.mp4\n")
    rows = read_list(path, need_label=False)
    assert list(rows.paths) == ["/data/with space.mp4", "/data/b.mp4"]
    assert rows.labels.tolist() == [-1, -1]
    with pytest.raises(ValueError, match="line 1: "):
        read_list(path)


def test_labels_are_left_out_of_the_path_even_where_nobody_needs_them(tmp_path):
    rows = read_list(written(tmp_path, "/data/a.mp4 5\n"), need_label=False)
    assert list(rows.paths) == ["/data/a.mp4"]


def test_names_that_are_no_utf8_survive(tmp_path):
    rows = read_list(written(tmp_path, b"/data/caf\xe9.mp4 1\n"))
    assert rows.paths[0].encode("utf-8", "surrogateescape") == b"/data/caf\xe9.mp4"


def test_first_five_bad_rows_are_named_with_their_lines(tmp_path):
    text = "/data/good.mp4 1\n" + "".join(f"/data/{row}.mp4 {row + 10}\n" for row in range(7))
    with pytest.raises(ValueError) as error:
        read_list(written(tmp_path, text), num_classes=10)
    message = str(error.value)
    assert "7 of 8 rows" in message
    assert [f"line {line}:" in message for line in range(1, 9)] == [False] + 5 * [True] + 2 * [False]
    assert "10 classes" in message and "\n" not in message


@pytest.mark.parametrize(("text", "reason"), [
    ("/data/a.mp4 300 2\n", "two columns"),          # path, frames, label: the frame count must not become a label
    ("/data/a.mp4 0 -1\n", "no label"),
    ("/data/a.mp4 0 150 2\n", "cut the parts out"),  # frames or seconds?
    ("/data/a.mp4 2\n/data/b.mp4 0 9 2\n", "line 2.*two columns"),
    ("/data/a 1 150 2\n/data/b 3\n/data/c 1 150 2\n", "two columns|columns where"),
    ("/data/a.mp4,300,2\n", "two columns"),
    ("/data/a.mp4 -2\n", "negative"),
    ("/data/a.mp4 one\n/data/b.mp4 2\n", "line 1"),
    ("/data/a.mp4 1.5\n", "no whole number"),
    ("/data/\0a.mp4 1\n", "zero byte"),
])
def test_rows_that_are_refused(tmp_path, text, reason):
    with pytest.raises(ValueError, match=reason):
        read_list(written(tmp_path, text))


def test_what_is_no_list(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothere"):
        read_list(tmp_path / "nothere.csv")
    with pytest.raises(FileNotFoundError):
        read_list(tmp_path)
    (tmp_path / "one.MP4").write_bytes(b"\0\0\0\x1cftypisom")
    with pytest.raises(ValueError, match="one.MP4 is a video, and a list of videos is wanted"):
        read_list(tmp_path / "one.MP4")
    for name, content, kind in (
            ("clips", b"\0\0\0\x1cftypisom", "a video"), ("truth", b"PK\3\4" + bytes(40), "a zip file"),
            ("a.csv", b"\x1f\x8b\x08\0abc", "a gzip file"), ("b.txt", b"G" + b"\xff" * 187 + b"G" + b"a" * 400, ""),
            ("noise", np.random.default_rng(0).bytes(5000), "a binary file"),
            ("zeros", bytes(5000), "a binary file"), ("floats", np.arange(1000.).tobytes(), "a binary file")):
        (tmp_path / name).write_bytes(content)
        said = f"{name} is {kind}.*, and a list of videos is wanted" if kind else "label"
        with pytest.raises(ValueError, match=said):
            read_list(tmp_path / name)
    (tmp_path / "wide").write_bytes("/d/a.mp4 0\n/d/b.mp4 1\n".encode("utf-16-le"))
    with pytest.raises(ValueError, match="saved as UTF-16"):
        read_list(tmp_path / "wide")
    (tmp_path / "list.ts").write_text("/d/a.mp4 0\n")
    assert list(read_list(tmp_path / "list.ts").paths) == ["/d/a.mp4"]
    for text in ("", "\n \n", "path label\n"):
        with pytest.raises(ValueError, match="empty"):
            read_list(written(tmp_path, text))


def test_a_folder_for_a_list_and_a_list_for_a_folder(tmp_path):
    """Pre-training takes a list, fine-tuning the folder that holds three: the line says which is there."""
    with pytest.raises(FileNotFoundError, match="folder, and a list file is wanted here: for example find "):
        read_list(tmp_path)
    other = written(tmp_path, "a.mp4 0\n", "any.csv")
    with pytest.raises(FileNotFoundError, match=re.escape(f"list file is wanted here: there is {other}")):
        read_list(tmp_path)
    path = written(tmp_path, "a.mp4 0\n")
    with pytest.raises(FileNotFoundError, match=re.escape(f"list file is wanted here: there is {path}")):
        read_list(tmp_path)
    with pytest.raises(FileNotFoundError, match=re.escape(f"{path} is a file, and the folder that holds val.csv is")):
        read_list(path / "val.csv")


def test_paths_cost_their_bytes_and_behave_like_a_list():
    names = [f"/data/videos/{row:09d}.mp4" for row in range(20_000)]
    tracemalloc.start()
    paths = Paths(names)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 20_000 * (len(names[0]) + 8) * 1.1
    assert paths[0] == names[0] and paths[-1] == names[-1] and paths[np.int64(777)] == names[777]
    assert len(paths) == 20_000
    with pytest.raises(IndexError):
        paths[20_000]


def test_a_line_without_an_end_is_a_bad_row_and_not_in_memory(tmp_path):
    path = written(tmp_path, "/data/a.mp4 1\n" + "x" * 40_000_000 + " 2\n/data/b.mp4 3\n")
    tracemalloc.start()
    with pytest.raises(ValueError, match="1 of 3 .*line 2: 'x+' .*4096"):
        read_list(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_reading_takes_little_more_memory_than_what_is_kept(tmp_path):
    """The one byte array and three arrays of numbers, with the room that growing takes; not an object a row."""
    path = written(tmp_path, "".join(f"/data/kinetics/train/{row:015d}.mp4 {row % 400}\n" for row in range(50_000)))
    tracemalloc.start()
    rows = read_list(path)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(rows) == 50_000 and rows.paths[49_999].endswith("049999.mp4")
    assert peak < 2.5 * kept < 2.5 * 50_000 * 75


@given(st.lists(st.tuples(
    st.text(st.characters(blacklist_characters="\n\r\0", blacklist_categories=["Cs"]), min_size=1, max_size=60),
    st.integers(0, 10**17)), min_size=1, max_size=8), st.sampled_from(["\t", ";", ",", " "]))
@settings(max_examples=200, **REPEATABLE)
def test_any_rows_come_back_or_are_named(rows, separator):
    """What was written is read again, or refused by line; nothing is lost or moved to another row."""
    rows = [(name, label) for name, label in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.csv"
        path.write_text("".join(f"/v/{name}.mp4{separator}{label}\n" for name, label in rows), newline="")
        found, bad = scan_list(path)
    lines = found.lines.tolist() + [int(line.split(":")[0].removeprefix("line ")) for line in bad]
    # Other line ends than \n (form feed, NEL, ...) are part of a path: each line is one row.
    assert sorted(lines) == list(range(1, len(rows) + 1))
    for name, label, line in zip(found.paths, found.labels.tolist(), found.lines.tolist(), strict=True):
        assert label == rows[line - 1][1] and name == f"/v/{rows[line - 1][0]}.mp4".strip()


@pytest.mark.faults
@settings(max_examples=300, **REPEATABLE)
@given(st.binary(max_size=400))
def test_any_bytes_give_rows_or_one_line(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.csv"
        path.write_bytes(content)
        for need_label in (True, False):
            try:
                rows = read_list(path, need_label)
            except ValueError as error:
                assert str(path) in str(error) and "\n" not in str(error)
            else:
                assert len(rows) == len(rows.paths) == len(rows.labels) > 0
                assert all(name and "\0" not in name for name in rows.paths)


WHOLE = None


@pytest.mark.parametrize(("text", "need_label", "paths", "labels", "spans"), [
    ('"/d/a.mp4","0"\n"/d/b, c.mp4","1"\n', True, ["/d/a.mp4", "/d/b, c.mp4"], [0, 1], WHOLE),
    ('"/d/a.mp4"\t"4"\n', True, ["/d/a.mp4"], [4], WHOLE),
    ("/d/a.mp4 0 -1\n/d/b c.mp4 0 -1\n", False, ["/d/a.mp4", "/d/b c.mp4"], [-1, -1], WHOLE),
    ("/d/a.mp4 0 -1 5\n/d/b.mp4 0 -1 6\n", True, ["/d/a.mp4", "/d/b.mp4"], [5, 6], WHOLE),
    ("/d/a 1 25\n/d/b 1 30\n", False, ["/d/a", "/d/b"], [-1, -1], [[1, 25], [1, 30]]),
    ("/d/a 0 25 3\n/d/b c 7 30 4\n", True, ["/d/a", "/d/b c"], [3, 4], [[0, 25], [7, 30]]),
    ("/d/a,7,30,4\n", True, ["/d/a"], [4], [[7, 30]]),
    ("frame_dir,start_index,total_frames,label\n/d/a,7,30,4\n", True, ["/d/a"], [4], [[7, 30]]),
    ("/d/a 25 3\n/d/b 30 4\n", True, ["/d/a", "/d/b"], [3, 4], [[0, 25], [0, 30]]),
    ("/d/a 25 3\n/d/b 30 4\n", False, ["/d/a", "/d/b"], [3, 4], [[0, 25], [0, 30]]),
    ('"/d/a","1","25","3"\n', True, ["/d/a"], [3], [[1, 25]]),
])
def test_lists_of_others(tmp_path, text, need_label, paths, labels, spans):
    """VideoMAEv2's, mmaction2's and a spreadsheet's."""
    rows = read_list(written(tmp_path, text), need_label)
    assert list(rows.paths) == paths and rows.labels.tolist() == labels
    assert rows.spans is None if spans is WHOLE else rows.spans.tolist() == spans


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_lists_as_other_systems_save_them(tmp_path, encoding):
    mark = "\ufeff" if encoding.endswith("e") else ""
    rows = read_list(written(tmp_path, f"{mark}/d/Übung 1.mp4 0\r\n/d/b.mp4 1\r\n".encode(encoding)))
    assert list(rows.paths) == ["/d/Übung 1.mp4", "/d/b.mp4"] and rows.labels.tolist() == [0, 1]


def test_a_list_that_only_begins_as_another_system_saves_it(tmp_path):
    with pytest.raises(ValueError, match="begins as utf-16.* save it as UTF-8"):
        read_list(written(tmp_path, "\ufeff/d/a.mp4 0\n".encode("utf-16-le") + b"\x00\xd8\x00"))


@pytest.mark.parametrize(("text", "reason"), [
    ("/d/a.mp4 0 150 2\n/d/b.mp4 30 90 1\n", "2 of 2 rows.*cut the parts out"),
    ("/d/a 1 150 2\n/d/b 2\n/d/c 1 150 2\n", "line 2: .*2 columns where other rows have 4"),
    ("/d/a,1\n/d/b,1,150,2\n/d/c,1\n", "line 2: .*4 columns where other rows have at most two"),
    ("/d/a -3 150 2\n/d/b -1 0 2\n", "start -3"), ("/d/a 1 0 2\n", "number of frames 0"),
])
def test_rows_with_columns_that_say_nothing_sure(tmp_path, text, reason):
    with pytest.raises(ValueError, match=reason):
        read_list(written(tmp_path, text))


def test_a_folder_whose_name_ends_with_a_number(tmp_path):
    """Three folders `clip N` that are there are no columns."""
    for number in range(3):
        (tmp_path / f"clip {number}").mkdir()
    rows = read_list(written(tmp_path, "".join(f"{tmp_path}/clip {number} 7\n" for number in range(3))))
    assert [Path(path).name for path in rows.paths] == ["clip 0", "clip 1", "clip 2"] and set(rows.labels) == {7}


@pytest.mark.parametrize(("rows", "line", "why"), [
    ("a.mp4 0\nb.mp4 cat\nc.mp4 1\n", 2, "the label 'cat' is no whole number"),
    ("a.mp4,0\n\nb.mp4,cat\n", 3, "the label 'cat' is no whole number"),
    ("a.mp4 1.5\n", 1, "the label '1.5' is no whole number"), ("a b.mp4\n", 1, "no label"),
    ("a /x/b\n", 1, "no label"), ("a.mp4\n", 1, "no label")])
def test_a_label_that_is_no_number_is_named_with_its_line(tmp_path, rows, line, why):
    path = tmp_path / "list.csv"
    path.write_text(rows)
    with pytest.raises(ValueError, match=rf"line {line}: .*\({why}: expected `path label`"):
        read_list(path)


def test_a_training_names_the_line_of_a_label_that_is_no_number(tmp_path):
    from tats.engines.runs.evaluator import read_labelled

    path = tmp_path / "train.csv"
    path.write_text("a.mp4 0\nb.mp4 cat\n")
    with pytest.raises(ValueError, match=r"1 of 2 rows .*line 2: 'b.mp4 cat' \(the label 'cat'.*predict CHECKPOINT"):
        read_labelled(path, 8)
    path.write_text("a.mp4 0\nb.mp4 9\n")
    with pytest.raises(ValueError, match="line 2: .*there are 8 classes") as error:
        read_labelled(path, 8)
    assert "CHECKPOINT" not in str(error.value)


def rows_of(*paths, label=0):
    return ClipList(Paths(paths), np.full(len(paths), label), np.arange(len(paths)), "list")


def test_where_two_lists_begin_to_differ():
    from tats.datasets.lists.list_marks import first_difference, marks_of

    many = [f"{row}.mp4" for row in range(3000)]
    whole = marks_of(rows_of(*many))
    assert whole["rows"] == 3000 and len(whole["marks"]) < 6 * 300

    def said(paths, **more):
        return first_difference(marks_of(rows_of(*paths, **more)), whole)

    assert said(many[:10]) == "the first 10 rows are the same"
    for row in (0, 5, 63):   # each of the first 64 rows is known
        assert said([*many[:row], "x", *many[row + 1:]]) == f"the first row that differs is row {row + 1}"
    assert said(many, label=1) == "the first row that differs is row 1"
    for row in (64, 100, 500, 2500):
        first, last = map(int, re.search(r"one of rows (\d+) to (\d+)",
                                         said([*many[:row], "x", *many[row + 1:]]) + " one of rows 1 to 1").groups())
        assert row + 1 in range(first, last + 1) or said([*many[:row], "x", *many[row + 1:]]).endswith(f"row {row + 1}")
        assert last - first <= .02 * last + 1
    assert int(re.search(r"the first (\d+) rows", said([*many[:-1], "x"]))[1]) <= 2999
