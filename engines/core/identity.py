"""What makes a run this run: the flags that change what is computed, the rows of its lists, the weights it starts from,
the sources of its plugins.

A checkpoint keeps them, and only the same run goes on from it. What each flag is to that, its declaration says
(`config.flags.IDENTITIES`).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from ...datasets.lists.list_file import ClipList
from ...datasets.lists.list_marks import first_difference, marks_of
from ...masking.registry import ALIASES
from ..config.common import OptimConfig
from ..config.flags import BATCH, CODE, CONTENT, FREE, SETUP, SOURCE
from ..config.plugin_sources import digests_of
from ..config.plugins import module_name

WEIGHTS = "weights"   # the name of the file of weights among the contents
CLIPS = "clips a step"


class Difference(NamedTuple):
    """A flag with its value here and in the checkpoint, and what it is to the identity."""

    flag: str
    here: Any
    there: Any
    identity: bool | str

    def __str__(self) -> str:
        dashes = "" if self.flag == CLIPS else "--"
        return f"{dashes}{self.flag}: {shown(self.here)} | {shown(self.there)}"


@dataclass(frozen=True)
class Identity:
    """The identity of a run.

    Attributes:
        flags: value by name of every flag that is not FREE. kinds: what each is to the identity.
        contents: hash by name of what is in its lists ("train", "val", "test"), and in the file whose weights it
            starts from ("weights"). Those that are not known are missing.
        clips_a_step: of all processes.
        lists: number and marks of its lists' rows by name, see `list_marks`; empty where they are not known.
        code: hash by module of the sources of plugins, --plugin's and those of installed packages.
    """

    flags: dict[str, Any]
    kinds: dict[str, bool | str]
    contents: dict[str, str]
    clips_a_step: int
    code: dict[str, str] = field(default_factory=dict)
    lists: dict[str, dict] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """12 hexadecimal digits: the same for runs that compute the same, wherever their files lie. Of plugins those
        count that --plugin names: one of an installed package is there for runs that have nothing of it, too."""
        ways = (BATCH, SETUP, CONTENT, SOURCE, CODE)
        computed = {name: value for name, value in self.flags.items() if self.kinds[name] not in ways}
        named = {module_name(name) for name in self.flags.get("plugin") or ()} & self.code.keys()
        parts = [computed, self.contents, self.clips_a_step, *([sorted(map(self.code.get, named))] if named else [])]
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def record(self) -> dict:
        """What a checkpoint keeps beside the settings; plain values."""
        return {"hash": self.hash, "contents": self.contents, "clips_a_step": self.clips_a_step, "code": self.code,
                "lists": self.lists}


def identity_of(settings: Any, lists: Mapping[str, ClipList], weights: str | None, clips_a_step: int) -> Identity:
    """The identity of a run that is about to start.

    Args:
        settings: its settings by topic. lists: those it reads, by name.
        weights: hash of the file that it starts from, None without one.
    """
    flags, kinds = {}, {}
    for name, item, value in declared(type(settings), settings):
        if item.metadata["identity"] is not FREE:
            flags[name], kinds[name] = _plain(name, value, type(settings)), item.metadata["identity"]
    contents = {name: list_hash(clips) for name, clips in lists.items()} | ({WEIGHTS: weights} if weights else {})
    return Identity(flags, kinds, contents, clips_a_step, digests_of(flags["plugin"] or ()),
                    {name: marks_of(clips) for name, clips in lists.items()})


def identity_in(state: Mapping, settings: type) -> Identity:
    """The identity that a checkpoint keeps.

    A flag that it does not know, being older, counts as its default; of such a one's files the names alone are known.

    Args:
        state: of a checkpoint. settings: the class of the program's settings.
    """
    known = {name: value for topic in state["settings"].values() for name, value in topic.items()}
    flags, kinds = {}, {}
    for name, item, _ in declared(settings):
        if item.metadata["identity"] is not FREE:
            default = None if item.default is MISSING else item.default
            flags[name], kinds[name] = _plain(name, known.get(name, default), settings), item.metadata["identity"]
    kept = state.get("identity") or {}
    clips = kept.get("clips_a_step") or flags["batch_size"] * flags["update_freq"] * len(state["rng"])
    return Identity(flags, kinds, dict(kept.get("contents") or {}), clips, dict(kept.get("code") or {}),
                    dict(kept.get("lists") or {}))


def unknown_flags(state: Mapping, settings: type) -> dict[str, Any]:
    """What a checkpoint was trained with that this version has no flag for; of another version, or of a plugin."""
    known = {name for name, _, _ in declared(settings)}
    return {name: value for topic in state["settings"].values() for name, value in topic.items() if name not in known}


def list_hash(clips: ClipList) -> str:
    """16 hexadecimal digits of a list's rows: paths, labels, and spans where it has some."""
    digest = hashlib.sha256(clips.labels.tobytes())
    if clips.spans is not None:
        digest.update(clips.spans.tobytes())
    for path in clips.paths:
        digest.update(path.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()[:16]


def differences(here: Identity, there: Identity) -> list[Difference]:
    """In what a run differs from a checkpoint."""
    found = []
    for name, value in here.flags.items():
        kind, other = here.kinds[name], there.flags[name]
        if kind == CONTENT:
            names = [one for one in here.contents if one != WEIGHTS]
            found += _contents(name, names, here, there)
        elif kind == SOURCE:
            found += _contents(name, [WEIGHTS], here, there)
        elif kind == CODE:
            found += _plugins(name, here, there)
        elif value != other:
            found.append(Difference(name, value, other, kind))
    if here.clips_a_step != there.clips_a_step:
        found.append(Difference(CLIPS, here.clips_a_step, there.clips_a_step, BATCH))
    return found


def _contents(flag: str, names: Iterable[str], here: Identity, there: Identity) -> list[Difference]:
    """Files by what is in them; where that is not known of one side, by their name."""
    names = list(names)
    if not there.contents or not here.contents:
        mine, other = here.flags[flag], there.flags[flag]
        same = Path(mine or "").name == Path(other or "").name
        return [] if same else [Difference(flag, mine, other, here.kinds[flag])]
    pairs = [(name, here.contents.get(name), there.contents.get(name)) for name in names]
    return [Difference(flag if name == WEIGHTS else f"{flag} ({name})", *_lists(name, here, there), here.kinds[flag])
            for name, mine, other in pairs if mine != other and (name == WEIGHTS or (mine and other))]


def _lists(name: str, here: Identity, there: Identity) -> tuple[str | None, str | None]:
    """What is said of a file on both sides: its hash; of a list the number of rows, and the first that differs."""
    mine, other = (f"{one.lists[name]['rows']} rows, {one.contents[name]}" if name in one.lists else
                   one.contents.get(name) for one in (here, there))
    both = name in here.lists and name in there.lists
    return mine, f"{other} ({first_difference(here.lists[name], there.lists[name])})" if both else other


def _plugins(flag: str, here: Identity, there: Identity) -> list[Difference]:
    """Modules by their sources: another text under the same name, or another module in the place of one that is gone.
    One that is only gone, or only new, alters nothing: other flags name what a run has of a plugin, and are compared.
    Of an older checkpoint nothing is known."""
    known = set(here.code.values()) & set(there.code.values())
    mine, others = ({name: text for name, text in one.code.items() if text not in known} for one in (here, there))
    gone = [name for name in others if name not in mine]
    pairs = [(name, name if name in others else gone[0]) for name in mine if name in others or gone]
    return [Difference(f"{flag} ({name})", f"{name} {mine[name]}", f"{other} {others[other]}", here.kinds[flag])
            for name, other in pairs]


def declared(settings: type, values: Any = None):
    """(name, field, value) of every flag."""
    for topic in fields(settings):
        for item in fields(topic.type):
            yield item.name, item, None if values is None else getattr(getattr(values, topic.name), item.name)


def _plain(name: str, value: Any, settings: type) -> Any:
    """A value as it is compared: lists for tuples, what None stands for, one name of several."""
    if name == "opt_betas" and not value:
        value = next(topic.type for topic in fields(settings) if issubclass(topic.type, OptimConfig)).default_betas
    if name == "mask_type":
        value = ALIASES.get(value, value)
    return list(value) if isinstance(value, tuple) else value


def shown(value: Any) -> str:
    return "none" if value in (None, "") else str(value).lower() if isinstance(value, bool) else str(value)
