"""An optimiser's state on its way through a checkpoint: averages by parameter name, settings from this run's flags."""

import torch
from torch import nn

# What this run's flags say of a group; everything else in it is the optimiser's own and comes from the checkpoint.
FLAGS = ("lr", "lr_scale", "weight_decay", "betas", "eps", "momentum", "fused")


def state_of(optimizer: torch.optim.Optimizer, net: nn.Module) -> dict:
    """`optimizer.state_dict()`, with the parameters' names in its order as `names`."""
    known = {id(parameter): name for name, parameter in net.named_parameters()}
    return optimizer.state_dict() | {"names": [known.get(id(parameter), "") for group in optimizer.param_groups
                                               for parameter in group["params"]]}


def load_state(optimizer: torch.optim.Optimizer, net: nn.Module, state: dict) -> None:
    """Put back what `state_of` returned, also where weight decay or layer decay makes other groups.

    Raises:
        ValueError: it belongs to another optimiser, or is too old to tell which average is which parameter's.
    """
    saved, own = state["param_groups"], optimizer.param_groups
    same = [len(group["params"]) for group in saved] == [len(group["params"]) for group in own]
    names, here = state.get("names"), state_of(optimizer, net)["names"]
    if not same and names is None:
        raise ValueError("the checkpoint does not name the parameters of its optimiser: --weight_decay 0 and "
                         "--layer_decay cannot be changed in it")
    if names is not None and sorted(names) != sorted(here):
        raise ValueError("the checkpoint's optimiser trains other parameters: start from its weights instead")
    places = {name: place for place, name in enumerate(names)} if names is not None else {}
    order = [places[name] for name in here] if names is not None else list(range(len(here)))
    entries = {place: state["state"][old] for place, old in enumerate(order) if old in state["state"]}
    groups, start = [], 0
    for number, group in enumerate(own):
        base = saved[min(number, len(saved) - 1)]
        count = len(group["params"])
        groups.append(base | {name: group[name] for name in FLAGS if name in group}
                      | {"params": list(range(start, start + count))})
        start += count
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
