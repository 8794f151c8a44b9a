"""Reading with PyAV: an index of the packets first, then only what the wanted frames need."""

import os
from typing import BinaryIO, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from .error import VideoError
from .memory import empty_clip

# Only local files, and only containers that hold videos: a playlist named .mp4 could otherwise make the program open
# other files or addresses.
_OPEN = {
    "protocol_whitelist": "file",
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,h264,hevc,m4v,"
                        "wmv,gif,image2,jpeg_pipe,png_pipe,y4m,yuv4mpegpipe,rm,dv,mxf,swf,nut,ivf,obu",
}
# Decoders whose frames come out bit for bit the same when frames that no other refers to are skipped.
_CAN_SKIP = frozenset({"h264", "hevc"})


class _Packet(NamedTuple):
    pts: int | None   # when its frame is shown, in the stream's time base
    is_keyframe: bool


class PyAVReader:
    """A file opened with PyAV. One thread; `close` it.

    Args:
        path: of the file. file: open for reading, where it is no local one; it is closed with the reader.
    """

    def __init__(self, path: str, file: BinaryIO | None = None):
        self.path, self._file = path, file
        self._container = None
        try:
            self._open()
            packets = self._list_packets()
        except av.FFmpegError as error:
            self.close()
            raise VideoError(path, _cause(error)) from None
        except VideoError:
            self.close()
            raise
        self.num_frames = len(packets)
        times = [packet.pts for packet in packets]
        # .avi has no presentation times, and a few others have useless ones: there frames are counted from the start.
        self._times = None
        if None not in times and len(set(times)) == len(times) and self._container.format.name != "avi":
            self._times = sorted(times)
            self._keys = sorted(packet.pts for packet in packets if packet.is_keyframe)
        if not packets:
            self.close()
            raise VideoError(path, "no frames in the video stream")

    def decode(self, wanted: list[int]) -> np.ndarray:
        """Frames `wanted` (ascending, distinct) -> uint8 (len(wanted), H, W, 3).

        Raises:
            VideoError: one of them cannot be decoded.
        """
        taken = _Taken(self.path, wanted)
        if self._times is None:
            self._decode_in_order(wanted, taken)
        else:
            self._decode_by_time(wanted, taken)
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

    def _open(self) -> None:
        self._close_container()
        av.logging.set_level(av.logging.PANIC)   # the cause is in our own error; FFmpeg's lines would break the bar
        # "file:" keeps a name with a colon from being read as an address.
        place = "file:" + os.path.abspath(self.path) if self._file is None else self._file
        if self._file is not None:
            self._file.seek(0)
        self._container = av.open(place, options=_OPEN, metadata_errors="ignore")
        covers = av.stream.Disposition.attached_pic
        streams = [stream for stream in self._container.streams.video if not stream.disposition & covers]
        if not streams:
            raise VideoError(self.path, "no video stream")
        self._stream = streams[0]
        self._codec = self._stream.codec_context
        if self._codec is None:
            raise VideoError(self.path, "no decoder for its video codec")
        self._codec.thread_count = 1                          # the loader's workers are the parallel part
        self._codec.options = {"err_detect": "explode"}       # a damaged frame is an error, not a guess

    def _list_packets(self) -> list[_Packet]:
        """One _Packet for each frame that will be shown, in the order of decoding.

        Raises:
            VideoError: the file ends before the place where its own index puts the last frame.
        """
        packets, is_cut = [], False
        for packet in self._container.demux(self._stream):
            if packet.size and not packet.is_discard:
                packets.append(_Packet(packet.pts, packet.is_keyframe))
                is_cut |= packet.is_corrupt
        announced = max(self._stream.frames, len(packets))
        ends = [entry.pos + entry.size for entry in self._stream.index_entries]
        size = os.path.getsize(self.path) if self._file is None else self._file.seek(0, os.SEEK_END)
        if is_cut or (ends and max(ends) > size):
            raise VideoError(self.path, f"the file is cut off: {len(packets)} of {announced} frames are there")
        return packets

    def _decode_by_time(self, wanted: list[int], taken: "_Taken") -> None:
        places = {self._times[index]: index for index in wanted}
        for start, times in self._by_keyframe(sorted(places)):
            group = {time: places[time] for time in times}
            self._decode_from(start, group, taken)
            if any(index in taken.left for index in group.values()):
                # Not every key frame is a clean start (open groups, gradual refresh): once more from the beginning.
                self._decode_from(self._times[0], group, taken)
                if any(index in taken.left for index in group.values()):
                    return

    def _by_keyframe(self, times: list[int]) -> list[tuple[int, list[int]]]:
        """Wanted times in groups with the key frame from which each is decoded."""
        groups = []
        starts = np.searchsorted(self._keys, times, side="right") - 1
        for place, time in zip(starts, times, strict=True):
            start = self._keys[place] if place >= 0 else self._times[0]
            if not groups or groups[-1][0] != start:
                groups.append((start, []))
            groups[-1][1].append(time)
        return groups

    def _decode_from(self, start: int, places: dict[int, int], taken: "_Taken") -> None:
        """Decode from the key frame at `start` on, until every time in `places` (time -> frame number) has been fed."""
        unfed = set(places)
        can_skip = self._codec.name in _CAN_SKIP
        try:
            self._container.seek(start, stream=self._stream, backward=True)
            for packet in self._container.demux(self._stream):
                if not packet.size:
                    break
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

    def __init__(self, path: str, wanted: list[int]):
        self.path, self.clip, self.error = path, None, ""
        self.slots = {number: slot for slot, number in enumerate(wanted)}
        self.left = set(wanted)
        self.to_rgb = VideoReformatter()   # kept: a new one a frame costs more than a small frame's decoding

    def take(self, number: int | None, frame: av.VideoFrame) -> None:
        """Keep the frame if it is wanted."""
        if number not in self.left:
            return
        if frame.is_corrupt:
            self.error = "the decoder marks it as damaged"
            return
        picture = self.to_rgb.reformat(frame, format="rgb24").to_ndarray()
        if frame.rotation:
            picture = as_shown(picture, display_matrix(frame))
        if self.clip is None:
            self.clip = empty_clip(self.path, len(self.slots), *picture.shape[:2])
        if picture.shape != self.clip.shape[1:]:
            raise VideoError(self.path, f"the picture's size changes from {self.clip.shape[2]}x{self.clip.shape[1]} "
                                        f"to {picture.shape[1]}x{picture.shape[0]} at frame {number}")
        self.clip[self.slots[number]] = picture
        self.left.discard(number)


def display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) of its file: x is shown at a x + c y, and y at b x + d y.

    Only for frames that are turned, since it ties PyAV's objects into cycles. One that is upside down and nothing else,
    (1, 0, 0, -1), does not count as turned: it stays as stored.
    """
    a, b, _, c, d = np.frombuffer(bytes(frame.side_data.get("DISPLAYMATRIX")), np.int32)[:5].tolist()
    return a, b, c, d


def as_shown(picture: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """(H, W, 3) turned and mirrored as players do."""
    a, b, c, d = matrix
    if abs(b) > abs(a):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[::-1 if d < 0 else 1, ::-1 if a < 0 else 1]


def _cause(error: av.FFmpegError) -> str:
    return error.strerror or type(error).__name__
