"""Synthetic videos with known motion: real .mp4 files, list files, and the truth about every token.

    python -m tats.datasets.moving_shapes --out data/shapes

writes videos, train.csv, val.csv and test.csv (`path class`, the class is the direction of motion), the same lists with
the texture as the class (train_appearance.csv, ...), and the scenes (train.npz, ...) from which `truth_for` tells for
any token grid which tokens move. The world itself is in `shapes_world`.
"""

import argparse
import contextlib
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from tqdm import tqdm

from .files import recorded_otherwise, write_whole, written_whole
from .lists.list_file import ClipList
from .processes.cores import usable_cores
from .processes.parallel import process_pool
from .program import run_program
from .synthetic.shapes_world import (
    DEFAULT_WORLD,
    DIRECTIONS,
    TEXTURES,
    Scene,
    World,
    coverage,
    draw_scene,
    render,
    without_motion,
)
from .video.decode import AS_INSTALLED

SPLITS = ("train", "val", "test")
MOVING_SHARE = .25   # of a token's area, in one of its frames: then it counts as moving, or as textured
_FRAMES_A_SECOND = 25


class ShapesConfig(NamedTuple):
    """What is written.

    Fields:
        out: folder.
        counts: videos of the splits.
        frames: of a video.
        render_size: pixels of a side. Twice the size that is trained on: H.264 halves the colours' resolution, and
            shrinking by two gives it back.
        seed: the same seed gives the same videos.
        world: what is in them.
    """

    out: Path
    counts: tuple[int, int, int] = (1024, 128, 256)
    frames: int = 16
    render_size: int = 48
    seed: int = 0
    world: World = DEFAULT_WORLD


def write_moving_shapes(config: ShapesConfig, workers: int | None = None, progress: bool = True) -> None:
    """Write the data set; about 4 ms a video and core at the default size.

    Raises:
        ValueError: sizes that make no video, or a folder that holds another set.
    """
    if min(config.counts) < 0 or sum(config.counts) < 1:
        raise ValueError(f"counts of videos must not be negative, and one at least positive: {config.counts}")
    if config.frames < 1 or config.render_size < 16 or config.render_size % 2:
        raise ValueError(f"videos need at least 1 frame and an even side of at least 16 pixels, got "
                         f"{config.frames} frames of {config.render_size}")
    _check(config.world)
    out = Path(config.out).resolve()
    _claim(out, config)
    workers = workers or usable_cores()
    with tqdm(total=sum(config.counts), unit="video", desc=str(out), disable=None if progress else True) as bar, \
            process_pool(workers, None) if workers > 1 else contextlib.nullcontext() as pool:
        each = partial(pool.map, chunksize=16) if pool else map   # one worker is this process
        for number, (split, count) in enumerate(zip(SPLITS, config.counts, strict=True)):
            (out / split).mkdir(parents=True, exist_ok=True)
            scenes = []
            for scene in each(partial(_write_one, config, number), range(count)):
                scenes.append(scene)
                bar.update()
            if scenes:
                with written_whole(out / f"{split}.npz", "wb") as file:
                    np.savez_compressed(file, **Scene(*map(np.stack, zip(*scenes, strict=True)))._asdict())
            paths = [out / split / _name(row) for row in range(count)]
            _write_list(out / f"{split}.csv", paths, [scene.direction for scene in scenes])
            _write_list(out / f"{split}_appearance.csv", paths, [scene.texture for scene in scenes])


def _claim(out: Path, config: ShapesConfig) -> None:
    """Raises ValueError: the folder holds another set, whose videos runs have been trained and measured on."""
    made = json.dumps({name: value for name, value in config._asdict().items() if name != "out"} | {
        "world": config.world._asdict()})
    record = out / "shapes.json"
    other = recorded_otherwise(record, json.loads(made))
    lists = [(out / f"{split}.csv", count) for split, count in zip(SPLITS, config.counts, strict=True)]
    if other or any(path.is_file() and len(path.read_text().splitlines()) != count for path, count in lists):
        raise ValueError(f"{out} holds other moving shapes{f', made with {other}' if other else ''}: choose "
                         "another --out, or delete them")
    write_whole(record, made + "\n")


def _check(world: World) -> None:
    if not 0 <= world.jitter <= 1:
        raise ValueError(f"jitter, in sides of the frame, must lie between 0 and 1, got {world.jitter}")
    if not 0 < world.object_scale <= 2:
        raise ValueError(f"object_scale must lie above 0 and at most be 2 (objects would meet), "
                         f"got {world.object_scale}")
    for name in ("texture_scale", "speed_scale"):
        if not 0 < getattr(world, name) < math.inf:
            raise ValueError(f"{name} must be a number above 0, got {getattr(world, name)}")


class Truth:
    """What is known about the videos of a split; rows are those of its list.

    Tokens are in the order (t h w), N of them. They are those of whole frames (`resize`), not of crops.
    """

    def __init__(self, scenes: Scene):
        self._scenes = scenes

    def __len__(self) -> int:
        return len(self._scenes.direction)

    def scene(self, row: int) -> Scene:
        """The scene of a row."""
        return Scene(*(field[row] for field in self._scenes))

    def row_of(self, path: str) -> int:
        """The row of a video by its file's name: a list that was shuffled or shortened keeps its truth.

        Raises:
            ValueError: no video of this split has that name.
        """
        stem = Path(path).stem
        if not (stem.isdecimal() and Path(path).name == _name(int(stem)) and int(stem) < len(self)):
            raise ValueError(f"{path} is none of this split's {len(self)} videos (000000.mp4 and on): only their "
                             "scenes are known")
        return int(stem)

    def moving(self, row: int, frame_indices: Sequence[int], grid: tuple[int, int, int]) -> np.ndarray:
        """bool (N,): a moving object covers at least MOVING_SHARE of the token in one of its frames.

        Args:
            row: of the list.
            frame_indices: (T,) frames of the video that make the clip.
            grid: T' x H' x W' tokens; T is a multiple of T'.
        """
        return self._shares(row, frame_indices, grid)[0] >= MOVING_SHARE

    def static_texture(self, row: int, frame_indices: Sequence[int], grid: tuple[int, int, int]) -> np.ndarray:
        """bool (N,): a still object covers as much of the token, and it is not moving."""
        moving, still = self._shares(row, frame_indices, grid)
        return (still >= MOVING_SHARE) & (moving < MOVING_SHARE)

    def background(self, row: int, frame_indices: Sequence[int], size: int) -> np.ndarray:
        """uint8 (T, size, size, 3): the clip's frames without what moves, as drawn, not as decoded from a video."""
        return render(without_motion(self.scene(row)), np.asarray(frame_indices), size)

    def _shares(self, row: int, frame_indices: Sequence[int], grid: tuple[int, int, int]) -> list[np.ndarray]:
        frame_indices, (slices, height, width) = np.asarray(frame_indices), grid
        if len(frame_indices) % slices:
            raise ValueError(f"{len(frame_indices)} frames do not make {slices} slices of tokens")
        both = coverage(self.scene(row), frame_indices, height, width)
        return [share.reshape(slices, -1, height * width).max(axis=1).ravel() for share in both]


def truth_for(dataset_dir: str | Path, split: str) -> Truth:
    """The truth about a split that `write_moving_shapes` wrote.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(dataset_dir) / f"{split}.npz"
    if not path.is_file():
        raise FileNotFoundError(f"no scenes of synthetic videos at {path}: write them with "
                                f"python -m tats.datasets.moving_shapes --out {dataset_dir}")
    with np.load(path) as stored:
        return Truth(Scene(**stored))


def require_frames(clips: ClipList, frames: int) -> None:
    """The truth is asked of a video's first frames, and the clip of a longer video begins anywhere.

    Raises:
        ValueError: the first video has another number of frames than `frames`. VideoError: it cannot be read.
    """
    with clips.opened(0, AS_INSTALLED.resolved().open) as video:
        if video.num_frames != frames:
            raise ValueError(f"the videos of {clips.source} have {video.num_frames} frames, a clip of the model has "
                             f"{frames}: what its tokens show is not known then. Write videos with python -m "
                             f"tats.datasets.moving_shapes --frames {frames}")


def _write_one(config: ShapesConfig, split: int, row: int) -> Scene:
    """Draw, render and encode one video. Every run of eight rows has all directions, every run of 32 all pairs."""
    rng = np.random.default_rng([config.seed, split, row])
    scene = draw_scene(rng, row % len(DIRECTIONS), row // len(DIRECTIONS) % len(TEXTURES), config.world)
    path = Path(config.out).resolve() / SPLITS[split] / _name(row)
    frames = render(scene, np.arange(config.frames), config.render_size)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_FRAMES_A_SECOND)
        stream.width = stream.height = config.render_size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        # Plain C code: with AVX-512's, 1 to 2 % of the videos came out with other bytes on every run of this program,
        # and a comparison could not be repeated to the digit.
        stream.options = {"crf": "10", "preset": "veryfast", "g": "8", "bf": "0", "x264-params": "asm=0"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return scene


def _name(row: int) -> str:
    return f"{row:06d}.mp4"


def _write_list(path: Path, videos: list[Path], labels: list) -> None:
    write_whole(path, "".join(f"{video} {int(label)}\n" for video, label in zip(videos, labels, strict=True)))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write synthetic videos with known motion.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    for split, count in zip(SPLITS, ShapesConfig._field_defaults["counts"], strict=True):
        parser.add_argument(f"--{split}", type=int, default=count, help=f"videos in {split}.csv")
    parser.add_argument("--size", type=int, default=24, help="side in pixels of the clips that will be trained on")
    parser.add_argument("--render_size", type=int, default=None, help="side of the videos; twice --size if not given")
    parser.add_argument("--frames", type=int, default=16, help="frames of a video")
    for name, what in (("jitter", "shake of the camera, in sides of the frame"),
                       ("object_scale", "size of the objects; a small one leaves more background"),
                       ("texture_scale", "period of their textures"), ("speed_scale", "of those that move")):
        parser.add_argument(f"--{name}", type=float, default=getattr(DEFAULT_WORLD, name), help=what)
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    parser.add_argument("--workers", type=int, default=None, help="processes; all cores if not given")
    args = parser.parse_args()
    world = World(*(getattr(args, name) for name in World._fields))
    write_moving_shapes(ShapesConfig(args.out, (args.train, args.val, args.test), args.frames,
                                     args.render_size or 2 * args.size, args.seed, world), args.workers)


if __name__ == "__main__":
    run_program(main)
