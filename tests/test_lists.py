"""List files: separators, spaces, headers, labels that may be missing, and what is said about bad rows."""

import tracemalloc

import numpy as np
import pytest
from tats.datasets.lists import Paths, read_list


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
    with pytest.raises(ValueError, match="line 1: .*no label"):
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
    ("/data/a.mp4 0 -1\n", "two columns"),
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
