"""List builders on miniature copies of the official split files, whole and broken."""

import json
from collections import Counter

import numpy as np
import pytest
from tats.datasets.build_lists import index_videos, main, stratified_subset
from tats.datasets.catalog import published
from tats.datasets.lists.list_file import read_list
from tats.datasets.lists.split_files import read_hmdb51, read_k400, read_ssv2, read_ucf101

UCF_TRAIN = ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1", "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02.avi 1",
             "Archery/v_Archery_g08_c01.avi 3", "ApplyLipstick/v_ApplyLipstick_g08_c01.avi 2")
UCF_TEST = ("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", "Archery/v_Archery_g01_c01.avi")


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines))


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"video")


def rows_of(path):
    """{path below the dataset's root: label}"""
    rows = read_list(path)
    return {name.split("/root/")[1]: int(label) for name, label in zip(rows.paths, rows.labels, strict=True)}


@pytest.fixture
def ucf(tmp_path):
    root = tmp_path / "root"
    splits = root / "ucfTrainTestlist"
    write(splits / "classInd.txt", "1 ApplyEyeMakeup", "2 ApplyLipstick", "3 Archery")
    write(splits / "trainlist01.txt", *UCF_TRAIN)
    write(splits / "testlist01.txt", *UCF_TEST)
    touch(root / "UCF-101", *(line.split()[0] for line in UCF_TRAIN + UCF_TEST))
    return root


@pytest.fixture
def hmdb(tmp_path):
    root = tmp_path / "root"
    splits = root / "testTrainMulti_7030_splits"
    # As published: a space behind the number, names with signs.
    write(splits / "wave_test_split1.txt", "a_(b)_wave!_0.avi 1 ", "c&d_wave_1.avi 2 ", "e_wave_2.avi 0 ")
    write(splits / "brush_hair_test_split1.txt", "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 2 ", "#1_brush_hair.avi 1 ")
    write(splits / "brush_hair_test_split2.txt", "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 ", "#1_brush_hair.avi 2 ")
    touch(root / "hmdb51_org", "wave/a_(b)_wave!_0.avi", "wave/c&d_wave_1.avi", "wave/e_wave_2.avi",
          "brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi", "brush_hair/#1_brush_hair.avi")
    return root


@pytest.fixture
def k400(tmp_path):
    root = tmp_path / "root"
    header = "label,youtube_id,time_start,time_end,split"
    write(root / "annotations/train.csv", header, "zumba,-abc_def,3,13,train", "abseiling,0347ZoDXyP0,95,105,train",
          '"using, a thing",xyz,0,10,train', "abseiling,gone1,1,11,train")
    write(root / "annotations/val.csv", header, "zumba,ggg,20,30,val", "abseiling,gone2,1,11,val")
    touch(root, "train/zumba/-abc_def_000003_000013.mp4", "train/abseiling/0347ZoDXyP0_000095_000105.mkv",
          "train/using a thing/xyz.mp4", "val/ggg_000020_000030.mp4", "val/notes.txt")
    return root


@pytest.fixture
def ssv2(tmp_path):
    root = tmp_path / "root"
    labels = {"Approaching something with your camera": "0", "Holding something next to something": "1"}
    templates = ["Approaching [something] with your camera", "Holding [something] next to [something]"]
    (root / "labels").mkdir(parents=True)
    (root / "labels/labels.json").write_text(json.dumps(labels))
    train = [{"id": str(n), "label": "x", "template": templates[n % 4 == 0], "placeholders": ["x"]}
             for n in range(1, 41)]
    (root / "labels/train.json").write_text(json.dumps(train))
    val = [{"id": str(n), "template": templates[0]} for n in (51, 52)]
    (root / "labels/validation.json").write_text(json.dumps(val))
    (root / "labels/test.json").write_text(json.dumps([{"id": "61"}]))
    touch(root / "20bn-something-something-v2", *(f"{n}.webm" for n in (*range(1, 41), 51, 52, 61)))
    return root


def test_ucf101(ucf, tmp_path):
    main(["ucf101", "--root", str(ucf), "--out", str(tmp_path / "lists")])
    assert rows_of(tmp_path / "lists/train.csv") == {
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi": 0,
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02.avi": 0,
        "UCF-101/Archery/v_Archery_g08_c01.avi": 2, "UCF-101/ApplyLipstick/v_ApplyLipstick_g08_c01.avi": 1}
    assert rows_of(tmp_path / "lists/val.csv") == {"UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi": 0,
                                                   "UCF-101/Archery/v_Archery_g01_c01.avi": 2}
    assert (tmp_path / "lists/test.csv").read_text() == (tmp_path / "lists/val.csv").read_text()
    assert (tmp_path / "lists/classes.txt").read_text().split() == ["ApplyEyeMakeup", "ApplyLipstick", "Archery"]


def test_hmdb51_takes_1_for_training_and_2_for_test(hmdb, tmp_path):
    main(["hmdb51", "--root", str(hmdb), "--out", str(tmp_path / "lists")])
    assert rows_of(tmp_path / "lists/train.csv") == {"hmdb51_org/brush_hair/#1_brush_hair.avi": 0,
                                                     "hmdb51_org/wave/a_(b)_wave!_0.avi": 1}
    assert rows_of(tmp_path / "lists/val.csv") == {
        "hmdb51_org/brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi": 0, "hmdb51_org/wave/c&d_wave_1.avi": 1}


def test_hmdb51_other_split(hmdb):
    splits = read_hmdb51(hmdb / "testTrainMulti_7030_splits", split=2)
    assert splits.classes == ["brush_hair"]
    assert [entry.names for entry in splits.val] == [("brush_hair/#1_brush_hair",)]


def test_k400_leaves_missing_videos_out_and_counts_them(k400, tmp_path, caplog):
    with caplog.at_level("INFO"):
        main(["k400", "--root", str(k400), "--out", str(tmp_path / "lists")])
    assert rows_of(tmp_path / "lists/train.csv") == {
        "train/zumba/-abc_def_000003_000013.mp4": 2, "train/abseiling/0347ZoDXyP0_000095_000105.mkv": 0,
        "train/using a thing/xyz.mp4": 1}   # a path with spaces survives the list
    assert rows_of(tmp_path / "lists/val.csv") == {"val/ggg_000020_000030.mp4": 2}
    assert "train: 1 of 4 videos are not there and left out, the first is gone1_000001_000011" in caplog.text
    assert "val: 1 of 2 videos are not there" in caplog.text


def test_ssv2(ssv2, tmp_path):
    main(["ssv2", "--root", str(ssv2), "--out", str(tmp_path / "lists")])
    train = rows_of(tmp_path / "lists/train.csv")
    assert len(train) == 40 and train["20bn-something-something-v2/4.webm"] == 1
    assert train["20bn-something-something-v2/5.webm"] == 0
    assert list(rows_of(tmp_path / "lists/val.csv").values()) == [0, 0]
    assert not (tmp_path / "lists/official_test.csv").exists()


def test_ssv2_official_test_set_and_long_names(ssv2, tmp_path):
    folder = ssv2 / "labels"
    for path in list(folder.iterdir()):
        path.rename(folder / f"something-something-v2-{path.name}")
    write(folder / "test-answers.csv", "61;Holding something next to something")
    main(["ssv2", "--root", str(ssv2), "--out", str(tmp_path / "lists")])
    assert rows_of(tmp_path / "lists/official_test.csv") == {"20bn-something-something-v2/61.webm": 1}


@pytest.mark.parametrize(("fraction", "size"), [("0.15", 6), ("val", 2), ("1", 40)])
def test_fraction_sets_the_size_of_the_training_list_only(ssv2, tmp_path, fraction, size):
    main(["ssv2", "--root", str(ssv2), "--out", str(tmp_path / "lists"), "--fraction", fraction])
    assert len(rows_of(tmp_path / "lists/train.csv")) == size
    assert len(rows_of(tmp_path / "lists/val.csv")) == 2


def test_subset_by_hand():
    # 10, 5 and 1 of 16 videos, 7 wanted: quotas 4.375, 2.1875, .4375; the one left goes to the last class.
    labels = [0] * 10 + [1] * 5 + [2]
    assert Counter(labels[row] for row in stratified_subset(labels, 7, seed=0)) == {0: 4, 1: 2, 2: 1}


@pytest.mark.parametrize("size", [1, 25, 150, 333, 999, 1000])
def test_subset_is_within_one_video_of_proportional(size):
    labels = np.random.default_rng(0).choice(40, 1000, p=np.arange(1, 41) / 820)
    rows = stratified_subset(labels, size, seed=3)
    assert len(rows) == len(set(rows)) == size and (np.diff(rows) > 0).all()
    off = np.bincount(labels[rows], minlength=40) - np.bincount(labels, minlength=40) * size / 1000
    assert np.abs(off).max() < 1


def test_subset_depends_on_the_seed_alone():
    labels = np.arange(200) % 7
    first = stratified_subset(labels, 30, seed=0)
    assert (first == stratified_subset(labels, 30, seed=0)).all()
    assert (first != stratified_subset(labels, 30, seed=1)).any()


@pytest.mark.parametrize("size", [0, 5])
def test_subset_of_impossible_size(size):
    with pytest.raises(ValueError, match=f"{size} of 4"):
        stratified_subset([0, 0, 1, 1], size, seed=0)


@pytest.mark.parametrize(("name", "text", "message"), [
    ("classInd.txt", "1 A\n3 B\n", "from 1 without gaps"),
    ("classInd.txt", "ApplyEyeMakeup\n", r"classInd.txt line 1: expected `NUMBER CLASS`"),
    ("trainlist01.txt", "Archery/v.avi 3\nSwimming/v.avi 4\n", r"trainlist01.txt line 2: expected"),
    ("trainlist01.txt", "Archery/v.avi 1\n", r"trainlist01.txt line 1: expected"),   # a number of another class
    ("testlist01.txt", "\n", "testlist01.txt is empty"),
])
def test_broken_ucf101(ucf, name, text, message):
    (ucf / "ucfTrainTestlist" / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_ucf101(ucf / "ucfTrainTestlist")


def test_broken_hmdb51(hmdb):
    folder = hmdb / "testTrainMulti_7030_splits"
    write(folder / "wave_test_split1.txt", "fine.avi 1", "odd.avi 3")
    with pytest.raises(ValueError, match=r"wave_test_split1.txt line 2: "):
        read_hmdb51(folder)
    with pytest.raises(FileNotFoundError, match="_test_split3.txt"):
        read_hmdb51(folder, split=3)


@pytest.mark.parametrize(("text", "message"), [
    ("label,youtube_id\na,b\n", "no column time_end, time_start"),
    ("label,youtube_id,time_start,time_end\na,b,now,3\n", r"train.csv line 2: time_start and time_end"),
    ("label,youtube_id,time_start,time_end\na,b\n", r"train.csv line 2: time_start and time_end"),
    ("label,youtube_id,time_start,time_end\n,b,1,2\n", r"train.csv line 2: label or youtube_id is empty"),
    ("label,youtube_id,time_start,time_end\n", "holds no videos"),
])
def test_broken_k400(k400, text, message):
    (k400 / "annotations/train.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_k400(k400 / "annotations")


@pytest.mark.parametrize(("name", "text", "message"), [
    ("labels.json", '{"A": "0", "B": "2"}', "from 0 without gaps"),
    ("labels.json", '{"A": "zero"}', "expected"),
    ("labels.json", "[]", "JSON object"),
    ("train.json", "not json", "train.json is not JSON"),
    ("train.json", '["1"]', "expected a list of"),
    ("train.json", '[{"id": "1", "template": "Flying [something]"}]', r"train.json item 1: no id, or template"),
    ("train.json", '[{"template": "Holding [something] next to [something]"}]', r"train.json item 1: no id"),
])
def test_broken_ssv2(ssv2, name, text, message):
    (ssv2 / "labels" / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read_ssv2(ssv2 / "labels")


@pytest.mark.parametrize("dataset", sorted(published()))
def test_missing_split_files_say_what_to_do(dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match="--annotations"):
        main([dataset, "--root", str(tmp_path), "--out", str(tmp_path / "lists")])


def test_missing_videos_are_refused_unless_asked(ucf, tmp_path):
    (ucf / "UCF-101/Archery/v_Archery_g08_c01.avi").unlink()
    arguments = ["ucf101", "--root", str(ucf), "--out", str(tmp_path / "lists")]
    with pytest.raises(ValueError, match=r"1 of 4 videos of train .* Archery/v_Archery_g08_c01: --allow_missing"):
        main(arguments)
    assert not (tmp_path / "lists").exists()
    main([*arguments, "--allow_missing"])
    assert len(rows_of(tmp_path / "lists/train.csv")) == 3


def test_no_videos_at_all(ucf, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no videos below .*--videos"):
        main(["ucf101", "--root", str(ucf), "--videos", str(tmp_path / "empty"), "--out", str(tmp_path / "lists")])


@pytest.mark.parametrize("extra", [["--split", "4"], ["--fraction", "0"], ["--fraction", "15"], ["--fraction", "all"]])
def test_bad_options(ucf, tmp_path, extra):
    with pytest.raises(ValueError, match=extra[0]):
        main(["ucf101", "--root", str(ucf), "--out", str(tmp_path / "lists"), *extra])


def test_index_takes_the_first_of_two_formats(tmp_path):
    touch(tmp_path, "a/x.mp4", "a/x.avi", "b/x.MKV", "b/y.txt")
    index = index_videos(tmp_path)
    assert index["a/x"].endswith("a/x.avi") and index["x"].endswith("a/x.avi")
    assert index["b/x"].endswith("b/x.MKV") and "y" not in index


@pytest.mark.parametrize("content, said", [
    (b"PK\3\4" + bytes(40), "is a zip file"), ("1 Äpfel\n".encode("latin-1"), "is not UTF-8"),
    ("1 a\n2 b\n".encode("utf-16-le"), "has zero bytes")])
def test_a_split_file_that_is_no_text_is_named(tmp_path, content, said):
    for name, read in (("classInd.txt", read_ucf101), ("train.csv", read_k400), ("labels.json", read_ssv2)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} {said}"):
            read(tmp_path)


def test_the_official_files_of_kinetics_are_not_replaced(tmp_path):
    """They are called as the lists are."""
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end,split\n")
    with pytest.raises(ValueError, match="--out would replace .*train.csv"):
        main(["k400", "--root", str(tmp_path), "--out", str(tmp_path)])
