"""What a video file holds, packet by packet: listed once, and remembered for the next clip of the same file."""

import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import BinaryIO, NamedTuple

import av
import numpy as np

from ..sources.kept_arrays import kept_arrays
from ..sources.opening import size_of, version_of
from .container_file import LARGE, choose_stream, open_for_listing
from .error import VideoError

_REMEMBERED = 1 << 20   # packets, of all files together: 17 bytes each
UNKNOWN = np.iinfo(np.int64).min   # a time that the file does not tell
_KEPT_AS = f"2, FFmpeg {av.library_versions['libavformat']}"   # what else a kept index depends on
# Recordings that begin within a group of pictures: players show nothing before the first key frame.
_STARTS_ANYWHERE = frozenset({"mpegts", "mpeg", "h264", "hevc", "mpegvideo"})
_CACHE: OrderedDict[tuple, "PacketIndex"] = OrderedDict()


class PacketIndex(NamedTuple):
    """The packets of a stream in the order of decoding.

    Fields:
        num_frames: frames that are shown.
        times: (num_frames,) int64, when each is shown, ascending, in the stream's time base. None: not known, or
            useless; frames are then counted from the start.
        pts, dts: (packets,) int64 of all packets, those included that are decoded and not shown; UNKNOWN: not told.
        sizes: (packets,) int64, bytes of each.
        keys: (key frames,) int64, which packets are key frames.
        damaged: times of frames for which parts of the file are missing.
    """

    num_frames: int
    times: np.ndarray | None
    pts: np.ndarray
    dts: np.ndarray
    sizes: np.ndarray
    keys: np.ndarray
    damaged: frozenset[int] = frozenset()

    def place(self, pts: int | None) -> int | None:
        """Which packet in the order of decoding is shown at `pts`; None: none, or several."""
        if pts is None or not len(self.pts):
            return None
        found = np.flatnonzero(self.pts == pts)
        return int(found[0]) if len(found) == 1 else None

    def place_of_run(self, packets: Sequence[av.Packet]) -> int | None:
        """Which packet the first of some consecutive ones is, by all their sizes and the time of the last; None: none,
        or several."""
        sizes = [packet.size for packet in packets]
        found = [place for place in np.flatnonzero(self.sizes == sizes[0]).tolist()
                 if self.sizes[place:place + len(sizes)].tolist() == sizes
                 and self.pts[place + len(sizes) - 1] == packets[-1].pts]
        return found[0] if len(found) == 1 else None


def index_of(path: str, container: av.container.InputContainer, stream: av.VideoStream,
             file: BinaryIO | None = None) -> PacketIndex:
    """The index of an open file.

    Args:
        file: what the container reads, where `path` is no local file.

    Raises:
        VideoError: the file ends before the place where its own index puts the last frame.
        av.FFmpegError: it cannot be read.
    """
    if file is None:
        status = os.stat(path)
        key = (os.path.abspath(path), status.st_mtime_ns, status.st_size)
    else:
        key = (path, version_of(file), size_of(file))
    if key in _CACHE:
        _CACHE.move_to_end(key)
        return _CACHE[key]
    def make() -> PacketIndex:
        index = _without_packets(path, stream.index, file, key[-1])
        return _listed(path, container, stream, key[-1]) if index is None else index

    # Once for all processes where it takes long, and where a later file of this name can be told from this one.
    index = make() if key[-1] < LARGE or key[1] is None else _kept(f"stream {stream.index} of {key}", make)
    _CACHE[key] = index
    while len(_CACHE) > 1 and sum(len(other.pts) for other in _CACHE.values()) > _REMEMBERED:
        _CACHE.popitem(last=False)
    return index


def _kept(name: str, make: Callable[[], PacketIndex]) -> PacketIndex:
    """`make()`, or what it returned before, perhaps in another process."""
    def arrays() -> dict[str, np.ndarray]:
        found = make()
        times = np.zeros(0, np.int64) if found.times is None else found.times
        return {"num_frames": np.array([found.num_frames, found.times is None]), "times": times, "pts": found.pts,
                "dts": found.dts, "sizes": found.sizes, "keys": found.keys,
                "damaged": np.array(sorted(found.damaged), np.int64)}

    found = kept_arrays(f"packets {_KEPT_AS} {name}", arrays)
    frames, has_no_times = found["num_frames"].tolist()
    return PacketIndex(frames, None if has_no_times else found["times"], found["pts"], found["dts"], found["sizes"],
                       found["keys"], frozenset(found["damaged"].tolist()))


def _without_packets(path: str, number: int, file: BinaryIO | None, size: int) -> PacketIndex | None:
    """The index of stream `number` without reading the packets; None where that cannot be trusted."""
    place = None if file is None else file.tell()
    try:
        container = open_for_listing(path, file)
        if container is None:
            return None
        with container:
            return _from_heads(path, container, number, size)
    except av.FFmpegError:
        return None
    finally:
        if file is not None:
            file.seek(place)


def _from_heads(path: str, container: av.container.InputContainer, number: int, size: int) -> PacketIndex | None:
    stream = choose_stream(path, container)
    if stream.index != number:
        return None
    if container.format.name.startswith("matroska"):
        index = _listed(path, container, stream, size)
        return index if index.num_frames else None
    entries = {(entry.pos, entry.size): entry.is_keyframe for entry in stream.index_entries}
    places: list[tuple[int, int]] = []
    index = _listed(path, container, stream, size, places)
    if len(places) != len(entries) or set(places) != set(entries):
        return None
    # Key frames by the file's word: the parser that says so otherwise has seen zeros.
    return index._replace(keys=np.flatnonzero([entries[place] for place in places]))


def _listed(path: str, container: av.container.InputContainer, stream: av.VideoStream, size: int,
            places: list[tuple[int, int]] | None = None) -> PacketIndex:
    """Go through all packets of a file of `size` bytes. places: gets (position, size) of each."""
    pts, dts, sizes, keys, shown, damaged = [], [], [], [], [], []
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.is_keyframe:
            keys.append(len(pts))
        if packet.is_corrupt:
            damaged.append(len(pts))
        shown.append(not packet.is_discard)
        pts.append(UNKNOWN if packet.pts is None else packet.pts)
        dts.append(UNKNOWN if packet.dts is None else packet.dts)
        sizes.append(packet.size)
        if places is not None:
            places.append((packet.pos, packet.size))
    shown, pts, dts = np.array(shown, bool), np.array(pts, np.int64), np.array(dts, np.int64)
    starts = np.array(keys, np.int64)
    if keys and keys[0] and container.format.name in _STARTS_ANYWHERE:
        shown &= (np.arange(len(pts)) >= keys[0]) & (pts >= pts[keys[0]])
    frames = int(shown.sum())
    missing = _missing(damaged, starts, dts)
    ends = [entry.pos + entry.size for entry in stream.index_entries]
    if (missing and missing[-1] == len(pts) - 1) or (ends and max(ends) > size):
        raise VideoError(path, f"the file is cut off: {frames} of {max(stream.frames, frames)} frames are there")
    times = np.sort(pts[shown])
    # .avi has no presentation times, and a few others have useless ones.
    useless = container.format.name == "avi" or UNKNOWN in times or (np.diff(times) == 0).any()
    if useless and missing:
        raise VideoError(path, f"parts of the file are missing at frame {missing[0]} of {frames}")
    return PacketIndex(frames, None if useless else times, pts, dts, np.array(sizes, np.int64), starts,
                       frozenset(pts[missing].tolist()))


def _missing(damaged: list[int], keys: np.ndarray, dts: np.ndarray) -> list[int]:
    """Which packets suffer where blocks of a transport stream are missing: all up to the next key frame.

    A place where whole files were put together looks alike, since their blocks are counted anew. It is told by the
    key frame that follows at once (the mark comes up to two packets early) and by a clock that goes back, or goes on as
    if nothing were missing.
    """
    found: set[int] = set()
    usual = np.median(np.diff(dts)) if len(dts) > 1 else 0
    for place in damaged:
        later = keys[keys > place]
        end = int(later[0]) if len(later) else len(dts)
        steps = np.diff(dts[place:end + 1])
        is_join = len(later) and end - place <= 2 and ((steps <= 0) | (steps == usual)).all()
        found.update(() if is_join else range(place, end))
    return sorted(found)
