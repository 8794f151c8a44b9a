"""What a file is, by its first bytes: said where another kind of file was wanted."""

LOOKED_AT = 4096   # bytes: as many as are asked for
_MOST_CONTROL = .02   # of the bytes; text has none but line ends and tabs, random bytes have a tenth
_STRAY = 32           # control characters that a short text may have all the same
_TEXT_CONTROL = frozenset(b"\0\t\n\f\r\x1b")
_BEGINNINGS = (
    (b"\x1aE\xdf\xa3", "a video"), (b"\0\0\x01\xba", "a video"), (b"\0\0\x01\xb3", "a video"), (b"FLV\x01", "a video"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a video"), (b"OggS", "a video"),
    (b"\x89PNG", "a picture"), (b"\xff\xd8\xff", "a picture"), (b"GIF8", "a picture"), (b"%PDF-", "a PDF file"),
    (b"\x89HDF\r\n", "an HDF5 file"), (b"\x93NUMPY", "a NumPy array"), (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "a gzip file"), (b"BZh", "a bzip2 file"), (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"), (b"7z\xbc\xaf\x27\x1c", "a 7z file"), (b"\x7fELF", "a program"),
    (b"SQLite format 3\0", "a database"),
)
# A checkpoint may be one of these, so that they say nothing of a file that should be one.
_BEGINNINGS_OF_WEIGHTS = ((b"PK\x03\x04", "a zip file (.npz, .pth, .xlsx)"), (b"PK\x05\x06", "an empty zip file"),
                          *((bytes([0x80, version]), "a pickled file") for version in (2, 3, 4, 5)))
_PACKET = 188   # bytes of a packet of MPEG-TS, each of which begins with "G"


def kind_by_beginning(start: bytes) -> str:
    """The kind of a file that is neither text nor weights, from its first LOOKED_AT bytes; "" where they do not say."""
    if start[4:8] == b"ftyp" or (start[:4] == b"RIFF" and start[8:12] == b"AVI "):
        return "a video"
    if start[257:262] == b"ustar":
        return "a tar file"
    if len(start) > 2 * _PACKET and set(start[::_PACKET]) == {ord("G")}:
        return "a video"
    return next((kind for beginning, kind in _BEGINNINGS if start.startswith(beginning)), "")


def kind_of_no_text(start: bytes) -> str:
    """The kind of a file that is no text, from its first LOOKED_AT bytes; "" where it may be text of some encoding.

    Stray control characters and zero bytes are no proof: a list may hold a damaged name, or be UTF-16.
    """
    kind = kind_by_beginning(start) or next(
        (kind for beginning, kind in _BEGINNINGS_OF_WEIGHTS if start.startswith(beginning)), "")
    if kind or not start or start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return kind
    odd = sum(byte < 32 and byte not in _TEXT_CONTROL for byte in start)
    zeros = max(start[0::2].count(0), start[1::2].count(0)) / len(start)   # UTF-16: every other byte
    both = min(start[0::2].count(0), start[1::2].count(0)) / len(start)
    is_wide = zeros > .25 and both < _MOST_CONTROL
    if odd > max(_STRAY, _MOST_CONTROL * len(start)) or (
            start.count(0) > max(_STRAY, .1 * len(start)) and not is_wide):
        return "a binary file"
    return ""
