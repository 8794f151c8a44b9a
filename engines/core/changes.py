"""What of a run may be another on a later start, and what --change may name; what else can be done where it may not."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..config.flags import BATCH, CODE, CONTENT, FIXED, FREE, KEPT, LONGER, SETUP, SOURCE
from .identity import CLIPS, Difference, declared, shown

ACT = (KEPT, CODE, CONTENT)   # these change steps that are still to come
# DeepSpeed keeps these in its own half of the checkpoint, each process its share.
HELD_BY_DEEPSPEED = frozenset({"opt_betas", "opt_eps", "momentum", "weight_decay", "layer_decay", "amp"})


class Place(NamedTuple):
    """Where a checkpoint stands: epochs behind it, the fewest that a run that goes on from it can have, and those that
    this run asks for."""

    behind: int
    least: int
    epochs: int


def allowed(found: Iterable[Difference], changed: Iterable[str], source: Path, deepspeed: bool,
            place: Place | None = None) -> list[Difference]:
    """Those of the differences that the run may go on with; to be named and recorded.

    Args:
        found: see `differences`. changed: names of flags that --change names.
        source: the checkpoint. deepspeed: whether the run trains with it. place: where the checkpoint stands.

    Raises:
        ValueError: there are others, or nothing is left that a change could act on; it says what can be done.
    """
    changed, found = set(changed), list(found)
    split = bool({"batch_size", "update_freq"} & changed) or all(one.flag != CLIPS for one in found)
    refused = [one for one in found if not _may(one, changed, split, deepspeed)]
    if not refused:
        if place is not None:
            _must_be_left(found, changed, source, place)
        return found
    for_good = [one.flag for one in refused if not _may(one, {one.flag.split(" (")[0]}, True, deepspeed)]
    ways = ["give another --output_dir", "--auto_resume false, which starts anew and keeps the old run in replaced-N"]
    too_short = place is not None and place.epochs < place.least
    if for_good:
        why = ", under DeepSpeed" if deepspeed and set(for_good) & HELD_BY_DEEPSPEED else ""
        ways[-1] += f"; a run cannot go on with another {', '.join(for_good)}{why}"
    elif too_short:
        ways[-1] += (f"; a run cannot go on to fewer epochs than the {place.behind} behind it: give --epochs "
                     f"{place.least} or more")
    else:
        hints = dict.fromkeys(f"--change {_argument(one, found)}" for one in refused)
        more = ""
        if place is not None and place.behind == place.epochs and any(one.identity in ACT for one in refused):
            more = (f" (with --epochs above {place.epochs}: all of them are behind it, and nothing is left that the "
                    "change could act on)")
        ways.append(f"{' '.join(hints)}, which goes on and is recorded{more}")
    raise ValueError(f"cannot resume from {source}, which belongs to another run (flag: this run | the checkpoint): "
                     f"{'; '.join(map(str, refused))}. Either {', or '.join(ways)}")


def _must_be_left(found: list[Difference], changed: set[str], source: Path, place: Place) -> None:
    """Raises ValueError: fewer epochs than are behind the checkpoint, or none left that a change could act on."""
    if place.epochs < place.least:
        raise ValueError(f"{source} has {place.behind} epochs behind it, --epochs is {place.epochs}: give --epochs "
                         f"{place.least} or more, or another --output_dir")
    applied = [one.flag for one in found if one.identity in ACT and one.flag.split(" (")[0] in changed]
    if place.behind == place.epochs and applied:
        raise ValueError(f"{source} has all {place.behind} epochs behind it: nothing is left that --change "
                         f"{', '.join(applied)} could act on. Give --epochs above {place.epochs} beside it, or another "
                         "--output_dir; for another test of these weights --eval and another --output_dir")


def _may(one: Difference, changed: set[str], split: bool, deepspeed: bool) -> bool:
    """Whether a run may go on with it. split: the clips of a step are the same, or may be others."""
    name = one.flag.split(" (")[0]
    if one.identity in (FIXED, SOURCE, SETUP) or (deepspeed and name in HELD_BY_DEEPSPEED and name in changed):
        return False
    if one.identity == BATCH:
        return split
    return name in changed or (one.identity == LONGER and one.here > one.there)


def must_be_changeable(names: Iterable[str], settings: type) -> None:
    """Raises ValueError: --change names a flag that is no part of what is computed; it needs no --change."""
    kinds = {name: item.metadata["identity"] for name, item, _ in declared(settings)}
    for name in sorted(canonical(names, settings)):
        if kinds.get(name, FREE) is FREE:
            why = "is no part of what is computed and may differ at every start" if name in kinds else "has no effect"
            raise ValueError(f"--change {name}: this flag {why}: give --{name} itself, without --change")


def canonical(names: Iterable[str], settings: type) -> set[str]:
    """The flags that `--change` names, aliases and leading dashes resolved."""
    aliases = {alias.lstrip("-"): name for name, item, _ in declared(settings)
               for alias in (*item.metadata.get("aliases", ()), f"no_{name}")}
    return {aliases.get(name.lstrip("-"), name.lstrip("-")) for name in names}


def _argument(one: Difference, found: list[Difference]) -> str:
    """`FLAG VALUE` as --change takes it."""
    name, value = one.flag.split(" (")[0], one.here
    if value == "":
        return f"{name} ''"
    if one.flag == CLIPS:
        return f"batch_size {next((other.here for other in found if other.flag == 'batch_size'), 'N')}"
    if one.identity == CONTENT:
        return f"{name} LIST"
    if one.identity == CODE:
        return f"{name} {one.flag.partition(' (')[2][:-1]}"
    return f"{name} '{' '.join(map(str, value))}'" if isinstance(value, list) else f"{name} {shown(value)}"
