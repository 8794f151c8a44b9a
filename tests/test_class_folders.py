"""Lists from folders, one a class: divided by shares, or by folders train, val and test."""

import os

import pytest
from tats.datasets.build_lists import index_videos, main
from tats.datasets.inputs import videos_below
from tats.datasets.lists.class_folders import read_class_folders
from tats.datasets.lists.list_file import read_list
from tats.datasets.program import run_program


def folders(root, **counts):
    """CLASS=videos: empty files, which the lists do not open."""
    for name, count in counts.items():
        place = root / name.replace("__", "/")
        place.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (place / f"v {number:02d}.mp4").touch()
    return root


def lists_of(root, out, *more):
    main(["folders", "--root", str(root), "--out", str(out), *more])
    return {part: list(zip(rows.paths, rows.labels.tolist(), strict=True))
            for part in ("train", "val", "test") for rows in (read_list(out / f"{part}.csv"),)}


def test_each_class_is_divided_by_its_shares(tmp_path):
    root = folders(tmp_path / "videos", run=20, jump=10, sit=5)
    (root / "readme.txt").touch()
    (root / ".cache").mkdir()
    parts = lists_of(root, tmp_path / "lists", "--val", ".2", "--test", ".1")
    assert (tmp_path / "lists" / "classes.txt").read_text() == "jump\nrun\nsit\n"
    count = {part: [sum(label == kind for _, label in rows) for kind in range(3)] for part, rows in parts.items()}
    assert count == {"train": [7, 14, 3], "val": [2, 4, 1], "test": [1, 2, 1]}
    paths = [path for rows in parts.values() for path, _ in rows]
    assert len(set(paths)) == 35 and all(f"/{['jump', 'run', 'sit'][label]}/" in path
                                         for rows in parts.values() for path, label in rows)
    assert lists_of(root, tmp_path / "again", "--val", ".2", "--test", ".1") == parts
    other = lists_of(root, tmp_path / "other", "--val", ".2", "--test", ".1", "--seed", "1")
    assert other != parts and {part: len(rows) for part, rows in other.items()} == {"train": 24, "val": 7, "test": 4}


def test_without_a_share_test_is_val(tmp_path):
    parts = lists_of(folders(tmp_path / "videos", a=10, b=10), tmp_path / "lists")
    assert parts["val"] == parts["test"] and len(parts["train"]) == 16


@pytest.mark.parametrize("names", [("train", "val", "test"), ("training", "validation", "test"), ("train", "test", "")])
def test_folders_of_parts_are_taken_as_they_are(tmp_path, names):
    train, val, test = names
    counts = {f"{train}__b": 3, f"{train}__a": 2, f"{val}__a": 1, f"{val}__b": 1}
    root = folders(tmp_path / "videos", **counts, **({f"{test}__a": 2} if test else {}))
    parts = lists_of(root, tmp_path / "lists")
    assert [len(parts[part]) for part in ("train", "val", "test")] == [5, 2, 2]
    assert all(f"/{train}/" in path for path, _ in parts["train"])
    assert all(f"/{val}/" in path for path, _ in parts["val"])
    assert all(f"/{test or val}/" in path for path, _ in parts["test"])


def test_videos_lie_at_any_depth_and_may_be_folders_of_pictures(tmp_path):
    root = folders(tmp_path / "videos", a__day1=2, a__day2=2, b=4)
    for name in ("one", "two"):
        (root / "b" / name).mkdir()
        (root / "b" / name / "img_1.jpg").touch()
        (root / "b" / name / "img_2.jpg").touch()
    parts = lists_of(root, tmp_path / "lists", "--val", ".25")
    found = [path.removeprefix(f"{root}/") for rows in (parts["train"], parts["val"]) for path, _ in rows]
    assert sorted(found) == sorted([*(f"a/{day}/v 0{n}.mp4" for day in ("day1", "day2") for n in (0, 1)),
                                    *(f"b/v 0{n}.mp4" for n in range(4)), "b/one", "b/two"])


@pytest.mark.parametrize(("counts", "more", "said"), [
    ({}, (), "no folders with videos"), ({"a": 3}, (), "at least two are needed"),
    ({"a": 3, "b": 1}, (), "class b has 1 video"), ({"a": 3, "b": 2}, ("--test", ".2"), "class b has 2 video"),
    ({"a": 3, "b": 3}, ("--val", "1.5"), "--val must lie"), ({"a": 3, "b": 3}, ("--split", "2"), "no split files"),
    ({"train__a": 3, "val__a": 1, "val__b": 1}, (), "1 of 2 classes have no training video, the first is b"),
])
def test_what_cannot_be_divided_is_said_in_one_line(tmp_path, capsys, counts, more, said):
    root = folders(tmp_path / "videos", **counts)
    root.mkdir(exist_ok=True)
    with pytest.raises(SystemExit) as end:
        run_program(lambda: main(["folders", "--root", str(root), "--out", str(tmp_path / "lists"), *more]))
    assert end.value.code == 2 and said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "lists").exists()


def test_official_data_sets_have_no_shares(tmp_path):
    with pytest.raises(ValueError, match="divide class folders"):
        main(["ucf101", "--root", str(tmp_path), "--out", str(tmp_path / "lists"), "--val", ".1"])


def test_links_that_lead_in_a_circle_have_an_end(tmp_path):
    """Each way to a video is gone once; a link to a folder that is elsewhere is followed."""
    for name in ("cats/a.mp4", "dogs/b.mp4", "dogs/._b.mp4", "dogs/.trash/c.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "cats" / "all").symlink_to(tmp_path)
    (tmp_path / "cats" / "self").symlink_to(tmp_path / "cats")
    (tmp_path / "dogs" / "cats").symlink_to(tmp_path / "cats")
    ways = ["cats/a.mp4", "dogs/b.mp4", "dogs/cats/a.mp4"]
    assert sorted(videos_below(str(tmp_path))) == [str(tmp_path / name) for name in ways]
    assert index_videos(tmp_path) == {key: str(tmp_path / name) for key, name in {
        "a": ways[0], "cats/a": ways[0], "b": ways[1], "dogs/b": ways[1]}.items()}
    (tmp_path / "cats" / "2.mp4").write_bytes(b"x")
    found = read_class_folders(tmp_path, val=.4).parts
    assert sorted(os.path.relpath(path, tmp_path) for path, _ in found["train"] + found["val"]) == [
        "cats/2.mp4", "cats/a.mp4", "cats/all/dogs/b.mp4", "dogs/b.mp4", "dogs/cats/2.mp4", "dogs/cats/a.mp4"]
