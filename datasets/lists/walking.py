"""Folders and what is below them."""

import os
from collections.abc import Iterator


def walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """As `os.walk` from the top, in the order of names; names that begin with a dot are left out.

    Links are followed, but never into a folder that they lie in: that way would have no end.
    """
    above = {folder: {os.path.realpath(folder)}}
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = {name: os.path.realpath(os.path.join(parent, name)) for name in sorted(folders) if name[0] != "."}
        inside = above.pop(parent)
        folders[:] = [name for name in real if real[name] not in inside]
        above |= {os.path.join(parent, name): inside | {real[name]} for name in folders}
        yield parent, folders, sorted(name for name in files if name[0] != ".")
