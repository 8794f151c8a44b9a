"""Bytes of objects behind addresses, through fsspec: a bounded number of attempts, and the length is checked."""

import functools
import logging
import os
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from .addresses import SourceError, driver_fault, scheme_of

ATTEMPTS = 5
MISSING = "No such object"
FIRST_WAIT = .25    # seconds before the second attempt; doubled before each further one
_PATIENCE = 60      # seconds after which no further attempt begins: gcsfs and the Hub's try half a minute by themselves
_VERSIONS = ("ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "generation", "blob_id")
Result = TypeVar("Result")
_TALKATIVE = {"gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}   # their loggers print tracebacks of each attempt
# Errors of aiohttp and botocore that stay: a wrong address, or no key at all.
_FINAL = frozenset({"TooManyRedirects", "InvalidURL", "InvalidUrlClientError", "NonHttpUrlClientError",
                    "NoCredentialsError", "PartialCredentialsError", "ParamValidationError"})
_CONNECT, _SILENCE = 10, 20   # seconds until a connection stands, and without a byte on it


class Described(NamedTuple):
    """What a store says of an object: its bytes, what tells it from a later one of the same name, and whether parts of
    it may be asked for. None: it does not say."""

    size: int | None
    version: str | None
    has_ranges: bool


def described(address: str) -> Described:
    """What is known of an object. Raises SourceError, as `fetch`."""
    def read() -> Described:
        found = _system(os.getpid(), scheme_of(address)).info(address)
        version = next((str(found[name]) for name in _VERSIONS if found.get(name)), None)
        return Described(found.get("size"), version, found.get("partial", True))

    return _guarded(address, read)


def fetch(address: str, start: int | None = None, end: int | None = None, *, total: int | None = None) -> bytes:
    """A whole object, or its bytes [start, end).

    Args:
        total: bytes of the whole object, from `described`. A server that knows no ranges sends all of it, which is then
            returned; without `total` that is an error.

    Raises:
        SourceError: it is not there, may not be read, or could not be read in ATTEMPTS attempts: the last one's cause.
    """
    def read() -> bytes:
        system = _system(os.getpid(), scheme_of(address))
        expected = end - start if start is not None else system.info(address).get("size") if total is None else total
        content = system.cat_file(address, start=start, end=end)
        if expected is not None and len(content) != expected and (start is None or len(content) != total):
            more = "; does the server know byte ranges?" if start is not None and len(content) > expected else ""
            raise SourceError(f"{len(content)} bytes came instead of {expected}{more}")
        return content

    return _guarded(address, read)


def _guarded(address: str, read: Callable[[], Result]) -> Result:
    if fault := driver_fault(scheme_of(address)):
        raise SourceError(fault)
    # Drivers draw their waiting times from `random`, and a clip's own draws must not depend on the network.
    state = random.getstate()
    try:
        return attempted(read)
    finally:
        random.setstate(state)


def attempted(read: Callable[[], Result]) -> Result:
    """`read()`, tried again where its error may pass.

    Raises:
        SourceError: the cause of the last attempt.
    """
    begun = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return read()
        except Exception as raised:  # noqa: BLE001 - each driver raises errors of its own
            error = _unwrapped(raised)
            if not _may_pass(error):
                raise SourceError(_cause(error)) from None
            if attempt == ATTEMPTS or time.monotonic() - begun > _PATIENCE:
                raise SourceError(f"{_cause(error)} ({attempt} attempt{'s' * (attempt > 1)})") from None
        time.sleep(FIRST_WAIT * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def _unwrapped(error: Exception) -> Exception:
    """fsspec's HTTP calls everything that goes wrong with an object's size "not found": what it was."""
    cause = error.__cause__
    is_http = isinstance(cause, FileNotFoundError | ValueError) or (
        type(cause).__module__.split(".")[0] in ("aiohttp", "asyncio"))
    return _unwrapped(cause) if isinstance(error, FileNotFoundError) and is_http else error


def _may_pass(error: Exception) -> bool:
    """Whether another attempt makes sense: not for what is missing, forbidden or impossible."""
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | ImportError | TypeError):
        return False
    if type(error).__name__ in _FINAL:
        return False
    status = _status(error)
    if 400 <= status < 500:
        return status in (408, 425, 429)
    return not isinstance(error, ValueError) or type(error).__module__.split(".")[0] in ("aiohttp", "botocore")


def _status(error: Exception) -> int:
    """The server's answer behind an error, by the names that drivers give it; 0: none."""
    answer = getattr(error, "response", None)
    for holder, name in ((error, "status"), (answer, "status_code"), (error, "code")):
        found = getattr(holder, name, None)
        if isinstance(found, int):
            return found if found >= 100 else 0   # 0: aiohttp's own errors
    return 403 if type(error) is OSError and str(error).startswith("Forbidden") else 0   # gcsfs says no more


def _cause(error: Exception) -> str:
    """One line that says what happened."""
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        hidden = type(error.__cause__).__name__ == "RepositoryNotFoundError"   # the Hub's answer to strangers
        return MISSING + ": the repository does not exist, or is private and HF_TOKEN is not of its owner" * hidden
    if status:
        return f"the server answered {status} {getattr(error, 'message', '')}".strip()
    text = " ".join(str(error).split())
    return text[:300] if isinstance(error, SourceError) else f"{type(error).__name__}: {text[:300]}".rstrip(": ")


@functools.cache
def _system(pid: int, scheme: str) -> Any:
    """fsspec's file system of a scheme; one for each process, since its threads do not survive a fork."""
    import fsspec

    options: dict[str, Any] = {"skip_instance_cache": True}
    if scheme in ("http", "https"):
        from aiohttp import ClientTimeout

        options["client_kwargs"] = {"timeout": ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENCE)}
    elif scheme in ("s3", "s3a"):
        options["config_kwargs"] = {"connect_timeout": _CONNECT, "read_timeout": _SILENCE,
                                    "retries": {"max_attempts": 1, "mode": "standard"}}
    elif scheme in ("gs", "gcs"):
        from aiohttp import ClientTimeout

        # Else each process asks over gRPC for the kind of the bucket: minutes where that is not let through.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        options["requests_timeout"] = ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=_SILENCE)
    if scheme in _TALKATIVE:   # what fails is told once, by the video's own line
        logging.getLogger(_TALKATIVE[scheme]).setLevel(logging.CRITICAL)
    system = fsspec.filesystem(scheme, **options)
    if scheme in ("s3", "s3a"):
        system.retries = 1   # the attempts are counted here
    return system
