"""List files: separators, spaces, headers, labels that may be missing, and what is said about bad rows."""

import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tats.datasets.lists.list_file import Paths, read_list, scan_list

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
    ("/data/a.mp4 1.5\n", "no label"),
    ("/data/\0a.mp4 1\n", "zero byte"),
])
def test_rows_that_are_refused(tmp_path, text, reason):
    with pytest.raises(ValueError, match=reason):
        read_list(written(tmp_path, text))


def test_missing_and_empty_lists(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothere"):
        read_list(tmp_path / "nothere.csv")
    with pytest.raises(FileNotFoundError):
        read_list(tmp_path)
    for text in ("", "\n \n", "path label\n"):
        with pytest.raises(ValueError, match="empty"):
            read_list(written(tmp_path, text))


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
