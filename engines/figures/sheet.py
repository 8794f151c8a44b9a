"""The paper's figure: frames, reconstruction, error, sampling probability and masks of one clip (Figs. 2, 4-15)."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...datasets.files import naming
from .text import any_script, printable


@dataclass(frozen=True)
class Row:
    """One row of a sheet.

    images: (T, H, W, 3) colours in [0, 1], or (T, h, w) values drawn with a colour scale, NaN in light grey.
    colours: name of a matplotlib colour map, for values. limits: of the colour scale; values outside take the colour
        of its end. bar: draw it beside the row.
    """

    title: str
    images: np.ndarray
    colours: str = "viridis"
    limits: tuple[float, float] | None = None
    bar: bool = False

    @property
    def scale(self):
        """Colour map and limits as matplotlib takes them."""
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        low, high = self.limits or (float(np.nanmin(self.images)), float(np.nanmax(self.images)))
        return ScalarMappable(Normalize(low, high), colormaps[self.colours].with_extremes(bad="0.87"))

    def draw(self, axes, frame: int) -> None:
        """One frame, without ticks."""
        image = self.images[frame]
        axes.imshow(self.scale.to_rgba(image) if image.ndim == 2 else image, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])

    def draw_bar(self, axes, picture) -> None:
        """The colour scale, as high as `picture`, beside it; a pointed end says that values lie beyond."""
        beyond = self.limits is not None and np.nanmax(self.images) > self.limits[1]
        bar = picture.figure.colorbar(self.scale, cax=axes, extend="max" if beyond else "neither")
        bar.ax.tick_params(labelsize=6, length=2, pad=1)


def draw_sheet(rows: list[Row], caption: str, path: str | Path, frames: int = 8,
               columns: Sequence[str] | None = None) -> None:
    """Write a PNG with one line of pictures per row, `frames` of them spread over the clip.

    Args:
        columns: what stands below each of the clip's frames; none: their numbers.
    """
    total = len(rows[0].images)
    chosen = np.linspace(0, total - 1, min(frames, total)).round().astype(int)
    width = 1.9 + 1.15 * max(len(chosen), 3) + 0.6
    caption, top = _wrapped(caption, width)
    height = 1.18 * len(rows) + top + 0.3
    figure = _figure(width, height)
    grid = figure.add_gridspec(len(rows), len(chosen), left=1.4 / width, right=1 - 0.75 / width, top=1 - top / height,
                               bottom=0.28 / height, wspace=0.05, hspace=0.07)
    for line, row in enumerate(rows):
        for column, frame in enumerate(chosen):
            axes = figure.add_subplot(grid[line, column])
            row.draw(axes, frame)
            if line == len(rows) - 1:
                axes.set_xlabel(columns[frame] if columns else f"frame {frame}", fontsize=7, labelpad=2)
            if column == 0:
                axes.set_ylabel(row.title, rotation=0, ha="right", va="center", fontsize=8, labelpad=6)
        if row.bar:
            row.draw_bar(axes.inset_axes((1.06, 0, 0.1, 1)), axes)
    _write_caption(figure, caption)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with naming(path), any_script():
        figure.savefig(path)


def draw_film(rows: list[Row], caption: str, paths: list[Path], fps: int = 6) -> None:
    """Write the rows side by side as moving pictures, one file a path: .gif or .mp4 (H.264)."""
    columns = min(len(rows), 4)
    lines = -(-len(rows) // columns)
    width = 2.0 * max(columns, 3) + 0.2
    caption, top = _wrapped(caption, width)
    height = 2.1 * lines + top
    shots = []
    for frame in range(len(rows[0].images)):
        figure = _figure(width, height)
        grid = figure.add_gridspec(lines, columns, left=0.1 / width, right=1 - 0.45 / width,
                                   top=1 - (top + 0.2) / height, bottom=0.08 / height, wspace=0.22, hspace=0.25)
        figure.text(1 - 0.1 / width, 1 - 0.1 / height, f"frame {frame}", fontsize=7, ha="right", va="top")
        for place, row in enumerate(rows):
            axes = figure.add_subplot(grid[place // columns, place % columns])
            row.draw(axes, frame)
            axes.set_title(row.title, fontsize=8, pad=3)
            if row.bar:
                row.draw_bar(axes.inset_axes((1.03, 0, 0.05, 1)), axes)
        _write_caption(figure, caption)
        with any_script():
            figure.canvas.draw()
        shots.append(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        with naming(path):
            (_write_gif if path.suffix == ".gif" else _write_mp4)(shots, path, fps)


def _wrapped(caption: str, width: float) -> tuple[str, float]:
    """(the caption in lines that fit into `width` inches, the height that they take)."""
    lines = [part for line in printable(caption).split("\n") for part in textwrap.wrap(line, int(12.5 * (width - 1)))]
    return "\n".join(lines), 0.3 + 0.17 * len(lines)


def _write_caption(figure, caption: str) -> None:
    """Above all rows; a video may have a dollar sign in its name."""
    figure.suptitle(caption, fontsize=9, y=1 - 0.1 / figure.get_figheight(), va="top", parse_math=False)


def _figure(width: float, height: float):
    """A figure on a canvas of its own, in inches: no window system and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120)
    FigureCanvasAgg(figure)
    return figure


def _write_gif(shots: list[np.ndarray], path: Path, fps: int) -> None:
    from PIL import Image

    # One palette for all frames, so that nothing flickers; an octree keeps the few pixels of a colour bar, too.
    palette = Image.fromarray(np.concatenate(shots)[::2]).quantize(256, Image.Quantize.FASTOCTREE)
    first, *rest = (Image.fromarray(shot).quantize(palette=palette, dither=Image.Dither.NONE) for shot in shots)
    first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)


def _write_mp4(shots: list[np.ndarray], path: Path, fps: int) -> None:
    import av

    height, width = (side - side % 2 for side in shots[0].shape[:2])   # H.264 with halved colours wants even sides
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for shot in shots:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(shot[:height, :width]), "rgb24")))
        file.mux(stream.encode())
