"""Start VideoMAE's released program under today's libraries: `python fork_shims.py PROGRAM ARGUMENTS...` in its folder.

What it was written for is torch 1.8, timm 0.4.12 and numpy 1.19. Only names that are gone and defaults that changed are
put back; nothing of the fork is replaced.
"""

import importlib.util
import random
import runpy
import sys
import types

import numpy
import timm.models
import timm.models.vision_transformer
import timm.optim
import timm.optim.optim_factory
import torch


def module(name: str, **names: object) -> None:
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(names)


def old_create_model(name: str, pretrained: bool = False, **options: object) -> torch.nn.Module:
    """timm 0.4: options that are None are not passed on, and no pretrained_cfg is added."""
    build = timm.models.model_entrypoint(name)
    return build(pretrained=pretrained, **{key: value for key, value in options.items() if value is not None})


class OldBlock(timm.models.vision_transformer.Block):
    """timm 0.3: takes `qk_scale`, which MAE leaves at None."""

    def __init__(self, *args: object, qk_scale: None = None, **options: object):
        assert qk_scale is None, "timm's block has no qk_scale any more"
        super().__init__(*args, **options)


class NoWriter:
    """In the place of TensorBoard's, where it is not installed."""

    def __init__(self, log_dir: str):
        self.log_dir = log_dir

    def add_scalar(self, *args: object) -> None:
        pass

    def flush(self) -> None:
        pass


module("torch._six", inf=float("inf"))
for gone, kind in (("float", float), ("int", int), ("bool", bool), ("object", object)):
    vars(numpy).setdefault(gone, kind)                                 # numpy 1.20's names of Python's own types
module("numpy.lib.function_base", disp=None)
module("cv2")                                                          # imported, never called for PIL images
module("models.pretrain.movinet")                                      # AdaMAE imports it, and did not release it
for gone, kind in (("nadam", "Nadam"), ("novograd", "NovoGrad"), ("radam", "RAdam"), ("nvnovograd", "NvNovoGrad"),
                   ("adafactor", "Adafactor"), ("rmsprop_tf", "RMSpropTF")):
    if not hasattr(sys.modules.get(f"timm.optim.{gone}"), kind):
        module(f"timm.optim.{gone}", **{kind: None})
timm.models.create_model = old_create_model
timm.__version__ = "0.3.2"                                             # MAE asserts it
if not hasattr(timm.optim.optim_factory, "add_weight_decay"):
    timm.optim.optim_factory.add_weight_decay = timm.optim.param_groups_weight_decay
timm.models.vision_transformer.Block = OldBlock
if importlib.util.find_spec("tensorboard") is None:
    module("torch.utils.tensorboard", SummaryWriter=NoWriter)
module("torch.optim._multi_tensor", AdamW=torch.optim.AdamW)
torch.optim._multi_tensor = sys.modules["torch.optim._multi_tensor"]
if not torch.cuda.is_available():   # the forks' loops take a GPU for granted
    class CPUScaler(torch.amp.GradScaler):
        """One that is off has no scale, which the loops log."""

        def __init__(self, *args: object, **kwargs: object):
            super().__init__("cpu", enabled=False)

        def state_dict(self) -> dict:
            return {"scale": 1.0}

        def load_state_dict(self, state: dict) -> None:
            assert state == {"scale": 1.0}, state

    class CPUParallel(torch.nn.parallel.DistributedDataParallel):
        def __init__(self, net: torch.nn.Module, device_ids: object = None, **kwargs: object):
            super().__init__(net, **kwargs)

    join = torch.distributed.init_process_group
    torch.distributed.init_process_group = lambda backend=None, **kwargs: join("gloo", **kwargs)
    torch.nn.parallel.DistributedDataParallel = CPUParallel
    torch.cuda.amp.GradScaler = CPUScaler
    torch.cuda.synchronize = torch.cuda.set_device = lambda *args, **kwargs: None
    torch.cuda.current_device, torch.cuda.device_count = (lambda: 0), (lambda: 1)
    torch.Tensor.cuda = lambda tensor, *args, **kwargs: tensor
    new_tensor = torch.tensor
    torch.tensor = lambda *args, device=None, **kwargs: new_tensor(
        *args, device=None if device == "cuda" else device, **kwargs)
new_load = torch.load
# Its checkpoints hold its pickled arguments.
torch.load = lambda *args, **kwargs: new_load(*args, **{"weights_only": False, **kwargs})

if __name__ == "__main__":
    random.seed(0)   # the forks seed torch and numpy alone, and crop by this one
    sys.argv = sys.argv[1:]
    sys.path[0] = ""
    runpy.run_path(sys.argv[0], run_name="__main__")
