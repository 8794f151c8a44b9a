"""Folders of pictures: the frames of one video and nothing else, with the brightness and the upright that they tell."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tats.datasets.check_list import main as check_list
from tats.datasets.lists.list_file import read_list
from tats.datasets.prepare_videos import main as prepare_videos
from tats.datasets.video.decode import Decoding, VideoError, open_video
from videos import cause_of, numbers, picture


def folder_of(folder, *names, size=(48, 64)):
    """Pictures whose brightness tells the last number of their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        digits = "".join(c if c.isdigit() else " " for c in Path(name).stem).split()
        Image.fromarray(picture(int(digits[-1]) % 30 if digits else 0, *size)).save(folder / name)
    return folder


def read(path, pattern="", seconds=0):
    with open_video(path, seconds=seconds, frame_pattern=pattern) as video:
        return video.read(range(video.num_frames))


@pytest.mark.parametrize("seconds", [0, 60])
def test_flow_beside_pictures_is_refused_and_can_be_chosen(tmp_path, seconds):
    folder_of(tmp_path, *(f"{kind}_{n:05d}.jpg" for kind in ("flow_x", "flow_y", "img") for n in (1, 2, 3)))
    with pytest.raises(VideoError) as error:
        read(tmp_path, seconds=seconds)
    assert all(word in str(error.value) for word in ("flow_x_00001.jpg", "img_00001.jpg", "--frame_pattern"))
    assert numbers(read(tmp_path, "img_*", seconds)) == [1, 2, 3]
    with pytest.raises(VideoError, match="2 kinds"):
        read(tmp_path, "flow_*", seconds)
    assert len(read(tmp_path, "*", seconds)) == 9
    with pytest.raises(VideoError, match=r"none of its 9 pictures matches --frame_pattern 'rgb_\*'"):
        read(tmp_path, "rgb_*", seconds)


@pytest.mark.parametrize(("names", "said"), [
    (["cam1_0001.png", "cam1_0002.png", "cam2_0001.png", "cam2_0002.png"], "same number, cam1_0001.png, cam2_0001.png"),
    (["1.png", "2.png", "1.jpg"], "same number"),
    (["img_1.png", "img_01.png", "img_2.png"], "same number"),
    (["img_1.png", "img_2.png", "cover.png"], "2 kinds"),
    (["img_1.png", "img_2.png", "img_2 (copy).png"], "2 kinds"),
])
def test_two_numberings_in_one_folder_are_refused(tmp_path, names, said):
    cause = cause_of(folder_of(tmp_path, *names))
    assert said in cause and "--frame_pattern" in cause


@pytest.mark.parametrize("names", [
    ["2.png", "10.png", "1.png"], ["v_a_g01_1.png", "v_a_g01_2.png"], ["frame.png"],
    ["scene1_frame1.png", "scene1_frame2.png", "scene2_frame3.png"],
    ["12-00-59.png", "12-01-00.png", "12-01-59.png"], ["frame1.JPG", "frame2.jpg", "frame3.jpeg"],
])
def test_one_numbering_is_one_video(tmp_path, names):
    assert len(read(folder_of(tmp_path, *names))) == len(names)


def test_what_systems_leave_in_folders_is_no_frame(tmp_path):
    folder_of(tmp_path, "img_1.png", "img_2.png")
    for name in ("._img_1.png", "._img_2.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.jpg"):
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    (tmp_path / "__MACOSX").mkdir()
    assert numbers(read(tmp_path)) == [1, 2]


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8])
def test_grey_of_sixteen_bits_is_scaled(tmp_path, dtype):
    levels = np.array([0, 20, 128, 200, 255])
    values = np.tile(levels.astype(dtype), (40, 12)) * dtype(257 if dtype == np.uint16 else 1)
    Image.fromarray(values).save(tmp_path / "1.png")
    assert np.array_equal(read(tmp_path)[0, 0, :5], np.repeat(levels[:, None], 3, axis=1))


@pytest.mark.parametrize(("tag", "shown"), [
    (1, lambda p: p), (2, lambda p: p[:, ::-1]), (3, lambda p: np.rot90(p, 2)), (4, lambda p: p[::-1]),
    (5, lambda p: p.swapaxes(0, 1)), (6, lambda p: np.rot90(p, -1)), (7, lambda p: np.rot90(p, 2).swapaxes(0, 1)),
    (8, lambda p: np.rot90(p))])
def test_pictures_are_upright(tmp_path, tag, shown):
    exif = Image.Exif()
    exif[0x0112] = tag
    stored = picture(5)
    Image.fromarray(stored).save(tmp_path / "1.png", exif=exif)
    assert np.array_equal(read(tmp_path)[0], shown(stored))


@pytest.mark.parametrize("seconds", [0, 60])
def test_the_damaged_picture_is_named_under_its_folder(tmp_path, seconds):
    folder_of(tmp_path, "img_1.png", "img_2.png")
    (tmp_path / "img_2.png").write_bytes(b"no picture")
    with pytest.raises(VideoError) as error:
        read(tmp_path, seconds=seconds)
    assert error.value.path == str(tmp_path) and "picture img_2.png: " in error.value.cause


@pytest.fixture
def listed(tmp_path):
    """A list as VideoMAEv2 and mmaction2 write it, of two parts of one folder numbered from 1, and a whole one."""
    folder_of(tmp_path / "a", *(f"img_{n:05d}.png" for n in range(1, 11)))
    folder_of(tmp_path / "b", *(f"img_{n:05d}.png" for n in range(5)))
    path = tmp_path / "list.csv"
    path.write_text(f"{tmp_path}/a 1 4 0\n{tmp_path}/a 5 6 1\n{tmp_path}/b 0 5 2\n{tmp_path}/b 0 6 3\n")
    return path


@pytest.mark.parametrize("seconds", [0, 60])
def test_start_and_total_of_a_list(listed, seconds):
    rows, found = read_list(listed), []
    assert rows.labels.tolist() == [0, 1, 2, 3]
    for row in range(3):
        with rows.opened(row, Decoding(timeout=seconds).open) as video:
            found.append(numbers(video.read(range(video.num_frames))))
            with pytest.raises(ValueError, match="asked of"):
                video.read([video.num_frames])
    assert found == [[1, 2, 3, 4], [5, 6, 7, 8, 9, 10], [0, 1, 2, 3, 4]]
    with pytest.raises(VideoError, match="asks for 6 frames from number 0, 5 of 5 are there"), \
            rows.opened(3, Decoding(timeout=seconds).open):
        pass


def test_the_programs_understand_parts(listed, tmp_path):
    assert check_list([str(listed), "--out", str(tmp_path / "clean"), "--num_workers", "0"]) == 1
    report = json.loads((tmp_path / "clean" / "list.report.json").read_text())
    assert [one["problem"] for one in report["findings"]] == ["unreadable"]
    assert (tmp_path / "clean" / "list.clean.csv").read_text() == "".join(listed.read_text().splitlines(True)[:3])
    assert prepare_videos([str(listed), "--root", str(tmp_path), "--out", str(tmp_path / "new"), "--num_workers", "0",
                           "--measure", "2"]) == 1
    rows = read_list(tmp_path / "new" / "list.csv")
    assert rows.spans is None and rows.labels.tolist() == [0, 1, 2]
    for path, frames in zip(rows.paths, ([1, 2, 3, 4], [5, 6, 7, 8, 9, 10], [0, 1, 2, 3, 4]), strict=True):
        assert numbers(read(path)) == frames
