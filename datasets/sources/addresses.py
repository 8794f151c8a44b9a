"""How a list names what is no local file.

    /data/shards/000003.tar::000000042.mp4         a member of a local tar file, read in place
    s3://bucket/videos/a.mp4                       an object behind an address that fsspec knows
    s3://bucket/shards/000003.tar::000000042.mp4   a member of a tar file there, read by its byte range
"""

import importlib.util
import inspect
import itertools
import re
from collections.abc import Sequence

_MEMBER = ".tar::"
_COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|tbz2?|txz|zip)::")
# scheme -> (the module that reads it, the package to install)
_DRIVERS = {"s3": ("s3fs", "s3fs"), "s3a": ("s3fs", "s3fs"), "gs": ("gcsfs", "gcsfs"), "gcs": ("gcsfs", "gcsfs"),
            "http": ("aiohttp", "aiohttp"), "https": ("aiohttp", "aiohttp"),
            "hf": ("huggingface_hub", "huggingface_hub"), "az": ("adlfs", "adlfs"), "abfs": ("adlfs", "adlfs")}
_OF_FSSPEC = frozenset({"file", "local", "memory"})   # its others wrap other files, or want a host and a password
_LOOKED_AT = 1000   # rows of a list; a scheme that none of them has is met when its first video is opened


class SourceError(OSError):
    """Why something elsewhere cannot be read, in one line, without its name."""


def is_elsewhere(path: str) -> bool:
    """Whether a path of a list is anything but a local file or folder."""
    return "://" in path or _MEMBER in path or _COMPRESSED.search(path) is not None


def split_member(path: str) -> tuple[str, str | None]:
    """("a.tar", "b.mp4") of "a.tar::b.mp4"; (path, None) of anything else."""
    container, found, member = path.partition(_MEMBER)
    return (container + ".tar", member) if found else (path, None)


def scheme_of(path: str) -> str:
    """"s3" of "s3://bucket/a.mp4", "" of a local path."""
    scheme, found, _ = path.partition("://")
    return scheme.lower() if found else ""


def check_member(path: str) -> None:
    """Raises SourceError: a path that names a member of something else than a plain tar file."""
    if _COMPRESSED.search(path):
        raise SourceError("members are read from plain .tar files: unpack the compressed one first")
    if "://" in path and "::" in path and _MEMBER not in path:
        raise SourceError("a member of a shard is written ADDRESS.tar::MEMBER, without a query behind .tar")


def require_drivers(paths: Sequence[str]) -> None:
    """Look whether what reads the addresses of a list is installed, before a run begins.

    Raises:
        ValueError: it is not; the package is named.
    """
    step = max(1, len(paths) // _LOOKED_AT)
    for scheme in {scheme_of(paths[row]) for row in range(0, len(paths), step)} - {""}:
        if fault := driver_fault(scheme):
            raise ValueError(fault)


def driver_fault(scheme: str) -> str:
    """Why addresses of a scheme cannot be read; "" where they can."""
    for module, package in itertools.chain([("fsspec", "fsspec")], [_DRIVERS[scheme]] if scheme in _DRIVERS else []):
        if importlib.util.find_spec(module) is None:
            return f"{scheme}:// needs {package}: pip install {package}, or this project's extra 'remote'"
    return "" if scheme in _DRIVERS else _fault_of_another(scheme)


def _fault_of_another(scheme: str) -> str:
    """fsspec has more drivers, and users register their own: those are used that need nothing but an address."""
    from fsspec.registry import get_filesystem_class, known_implementations, registry

    unsupported = f"{scheme}:// is not supported ({', '.join(f'{name}://' for name in _DRIVERS)} are)"
    own = scheme not in registry and known_implementations.get(scheme, {"class": ""})["class"].startswith("fsspec.")
    if own and scheme not in _OF_FSSPEC:
        return f"{unsupported}: copy the videos to such a store or to a disk"
    try:
        driver = get_filesystem_class(scheme)
    except ImportError as error:
        return f"{scheme}:// needs a package that is not installed: {' '.join(str(error).split())}"
    except ValueError:
        return f"{unsupported}: fsspec knows no such scheme"
    _, *taken = inspect.signature(driver.__init__).parameters.values()
    needed = [one.name for one in taken if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL,
                                                                                         one.VAR_KEYWORD)]
    return f"{unsupported}: its driver needs more than an address ({', '.join(needed)})" if needed else ""
