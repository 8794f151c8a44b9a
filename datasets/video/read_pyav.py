"""Reading with PyAV: an index of the packets first, then only what the wanted frames need."""

import gc
from collections.abc import Iterator
from itertools import chain, islice
from typing import BinaryIO

import av
import numpy as np

from .colors import ToRGB
from .container_file import choose_stream, open_container
from .error import VideoError
from .memory import empty_clip
from .packet_index import UNKNOWN, index_of

# Decoders whose frames come out bit for bit the same when frames that no other refers to are skipped.
_CAN_SKIP = frozenset({"h264", "hevc"})
# Made for sending: there is no index, and a seek goes by the time of decoding, which is before that of showing.
_SEEK_BY_DTS = frozenset({"mpegts", "mpeg"})
_HEAD = 6         # packets by which a place is known
_TRIED_KEYS = 3   # key frames that a seek is tried with before the file is read from its start


class PyAVReader:
    """A file opened with PyAV. One thread; `close` it.

    Args:
        path: of the file. file: open for reading, where it is no local one; it is closed with the reader.
    """

    first_number = 0

    def __init__(self, path: str, file: BinaryIO | None = None):
        self.path, self._file = path, file
        self._container = None
        try:
            self._open()
            self._index = index_of(path, self._container, self._stream, file)
            self.num_frames = self._index.num_frames
            if not self.num_frames:
                raise VideoError(path, "no frames in the video stream")
        except (av.FFmpegError, OSError) as error:
            self.close()
            raise VideoError(path, _cause(error)) from None
        except VideoError:
            self.close()
            raise

    def decode(self, wanted: list[int]) -> np.ndarray:
        """Frames `wanted` (ascending, distinct) -> uint8 (len(wanted), H, W, 3).

        Raises:
            VideoError: one of them cannot be decoded.
        """
        taken = _Taken(self.path, wanted, self._index.damaged)
        try:
            if self._index.times is None:
                self._decode_in_order(wanted, taken)
            else:
                self._decode_by_time(wanted, taken)
        except OSError as error:   # of the disk or the store behind the file
            raise VideoError(self.path, _cause(error)) from None
        if taken.left:
            after = f" ({taken.error})" if taken.error else ""
            raise VideoError(self.path, f"frame {min(taken.left)} of the {self.num_frames} that the file announces "
                                        f"cannot be decoded{after}")
        return taken.clip

    def close(self) -> None:
        """Close the file."""
        self._close_container()
        if self._file is not None:
            self._file.close()

    def _close_container(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None
            gc.collect(1)   # frames whose side data were looked at are in cycles

    def _open(self) -> None:
        self._close_container()
        self._container = open_container(self.path, self._file)
        self._stream = choose_stream(self.path, self._container)
        self._codec = self._stream.codec_context
        self._codec.thread_count = 1                          # the loader's workers are the parallel part
        self._codec.options = {"err_detect": "explode"}       # a damaged frame is an error, not a guess

    def _decode_by_time(self, wanted: list[int], taken: "_Taken") -> None:
        places = {int(self._index.times[number]): number for number in wanted}
        for key, times in self._by_keyframe(sorted(places)):
            group = {time: places[time] for time in times}
            self._decode_from(key, group, taken)
            if key >= 0 and any(number in taken.left for number in group.values()):
                # Not every key frame is a clean start (open groups, gradual refresh): once more from the beginning.
                self._decode_from(-1, group, taken)
            if any(number in taken.left for number in group.values()):
                return

    def _by_keyframe(self, times: list[int]) -> list[tuple[int, list[int]]]:
        """Wanted times in groups with the key frame (its place in `keys`; -1: none) from which each is decoded."""
        shown = self._index.pts[self._index.keys]
        order = np.argsort(shown, kind="stable")
        groups: list[tuple[int, list[int]]] = []
        for place, time in zip(np.searchsorted(shown[order], times, side="right") - 1, times, strict=True):
            key = int(order[place]) if place >= 0 else -1
            if not groups or groups[-1][0] != key:
                groups.append((key, []))
            groups[-1][1].append(time)
        return groups

    def _decode_from(self, key: int, places: dict[int, int], taken: "_Taken") -> None:
        """Decode from a key frame on, until every time in `places` (time -> frame number) has been fed."""
        unfed = set(places)
        taken.to_rgb.restart()
        can_skip = self._codec.name in _CAN_SKIP
        try:
            for packet in self._packets_from(key):
                if can_skip:
                    self._codec.skip_frame = "DEFAULT" if packet.pts in places else "NONREF"
                for frame in self._codec.decode(packet):
                    taken.take(places.get(frame.pts), frame)
                unfed.discard(packet.pts)
                if not unfed:
                    break
            for frame in self._codec.decode(None):   # what the decoder still holds back
                taken.take(places.get(frame.pts), frame)
        except av.FFmpegError as error:
            taken.error = _cause(error)
        finally:
            if can_skip:
                self._codec.skip_frame = "DEFAULT"

    def _packets_from(self, key: int) -> Iterator[av.Packet]:
        """Packets from a key frame on, or from one before it; from the file's start where a seek misleads."""
        index = self._index
        by_dts = self._container.format.name in _SEEK_BY_DTS
        times = index.dts if by_dts else index.pts
        for earlier in range(key, max(-1, key - _TRIED_KEYS), -1):
            time = int(times[index.keys[earlier]])
            if time == UNKNOWN:
                continue
            self._container.seek(time, stream=self._stream, backward=True)
            place, packets = self._from_known_place() if by_dts else self._from_first()
            if packets and (place is None or place <= index.keys[key]):
                yield from self._checked(place, packets)
                return
        self._open()
        yield from self._full_packets()

    def _from_first(self) -> tuple[int | None, Iterator[av.Packet] | None]:
        """(which packet the first one is, all of them) after a seek; None: it is in no index, as those that an edit
        list cuts off, which come before."""
        packets = self._full_packets()
        first = next(packets, None)
        return (None, None) if first is None else (self._index.place(first.pts), chain([first], packets))

    def _from_known_place(self) -> tuple[int | None, Iterator[av.Packet] | None]:
        """The same of containers in which a seek ends within a packet: its rest, and the times up to the next stamp,
        belong to others. What follows is known by its sizes; it begins with a key frame."""
        packets = self._full_packets()
        head = list(islice(packets, _HEAD))
        for skipped in range(min(len(head), _HEAD // 2)):
            place = self._index.place_of_run(head[skipped:])
            if place is not None:
                rest = chain(head[skipped:], packets)
                for number, packet in enumerate(rest, start=place):
                    if packet.is_keyframe:
                        return number, chain([packet], rest)
                break
        return None, None

    def _checked(self, place: int | None, packets: Iterator[av.Packet]) -> Iterator[av.Packet]:
        """Packets with the times of the index, as long as they are those of the index."""
        index = self._index
        for packet in packets:
            if place is None:
                place = index.place(packet.pts)
            if place is not None:
                if place == len(index.pts) or packet.size != index.sizes[place]:
                    return
                packet.pts = int(index.pts[place])
                place += 1
            yield packet

    def _full_packets(self) -> Iterator[av.Packet]:
        return (packet for packet in self._container.demux(self._stream) if packet.size)

    def _decode_in_order(self, wanted: list[int], taken: "_Taken") -> None:
        """Decode from the first frame to the last wanted one, counting: sure where times and seeking are not."""
        try:
            self._open()
            for number, frame in enumerate(self._container.decode(self._stream)):
                taken.take(number, frame)
                if number == wanted[-1]:
                    break
        except av.FFmpegError as error:
            taken.error = _cause(error)


class _Taken:
    """The frames that have come out so far."""

    def __init__(self, path: str, wanted: list[int], damaged: frozenset[int]):
        self.path, self.damaged, self.clip, self.error = path, damaged, None, ""
        self.slots = {number: slot for slot, number in enumerate(wanted)}
        self.left = set(wanted)
        self.to_rgb = ToRGB()

    def take(self, number: int | None, frame: av.VideoFrame) -> None:
        """Keep the frame if it is wanted."""
        self.to_rgb.look(frame)
        if number not in self.left:
            return
        if frame.is_corrupt or frame.pts in self.damaged:
            self.error = "parts of the file are missing" if frame.pts in self.damaged else \
                "the decoder marks it as damaged"
            return
        picture = self.to_rgb(frame)
        if self.clip is None:
            self.clip = empty_clip(self.path, len(self.slots), *picture.shape[:2])
        if picture.shape != self.clip.shape[1:]:
            raise VideoError(self.path, f"the picture's size changes from {self.clip.shape[2]}x{self.clip.shape[1]} "
                                        f"to {picture.shape[1]}x{picture.shape[0]} at frame {number}")
        self.clip[self.slots[number]] = picture
        self.left.discard(number)


def _cause(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
