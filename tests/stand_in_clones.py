"""Folders that the benchmark takes for clones of the originals: their names and signatures, and next to no work."""

from pathlib import Path

_NETWORK = '''
import torch
from timm.models.layers import trunc_normal_
from torch import nn


class Net(nn.Module):
    """One weight a value of a token."""

    def __init__(self, depth, ratio=None):
        super().__init__()
        print("noise")
        self.ratio, self.mask_token = ratio, nn.Parameter(torch.zeros(1, 1, depth))
        self.head = nn.Linear(1, 1536)

    def forward(self, videos, mask=None):
        means = videos.mean(1).unfold(1, 2, 2).unfold(2, 16, 16).unfold(3, 16, 16).mean((-1, -2, -3)).flatten(1)
        tokens = self.head(means[..., None]) + self.mask_token.sum()
        if self.ratio is None:
            return tokens[mask].reshape(len(videos), -1, 1536)
        mask = torch.arange(means.shape[1]) >= means.shape[1] * (1 - self.ratio)
        return tokens[:, mask], means.softmax(1), mask.expand_as(means)


def pretrain_videomae_base_patch16_224(decoder_depth, mask_ratio=None):
    return Net(decoder_depth, mask_ratio)
'''
_ENGINE = '''
import {utils} as utils


def train_one_epoch(model, data_loader, optimizer, device, epoch, loss_scaler, max_norm=0, start_steps=None):
    model.train()
    for videos, mask in data_loader:
        outputs = model(videos.to(device), mask.to(device)) if {masked} else model(videos.to(device))[0]
        optimizer.zero_grad()
        norm = loss_scaler(outputs.float().square().mean(), optimizer, clip_grad=max_norm,
                           parameters=model.parameters(), create_graph=False)
        torch = utils.torch
        torch.cuda.synchronize()
        print(norm, loss_scaler.state_dict()["scale"], start_steps + 0)
'''
_UTILS = '''
import torch
from torch._six import inf


class NativeScalerWithGradNormCount:
    def __init__(self):
        self._scaler = torch.cuda.amp.GradScaler()

    def __call__(self, loss, optimizer, clip_grad=None, parameters=None, create_graph=False):
        self._scaler.scale(loss).backward(create_graph=create_graph)
        self._scaler.unscale_(optimizer)
        norm = torch.stack([one.grad.norm() for one in parameters if one.grad is not None]).norm()
        self._scaler.step(optimizer)
        self._scaler.update()
        return norm

    def state_dict(self):
        return self._scaler.state_dict()
'''
_CLASSIFIER = '''
from torch import nn


class Classifier(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(3, num_classes)

    def forward(self, videos):
        return self.head(videos.mean((2, 3, 4)))


def vit_base_patch16_224(num_classes, drop_path_rate, all_frames, img_size):
    return Classifier(num_classes)
'''
_DATASETS = '''
from kinetics import VideoMAE


def build_pretraining_dataset(args):
    print("noise", args.mask_type, args.mask_ratio, args.input_size, args.window_size)
    return VideoMAE(setting=args.data_path, new_length=args.num_frames, new_step=args.sampling_rate)
'''
_KINETICS = '''
from numpy.lib.function_base import disp
import functional
import torch


class VideoMAE:
    def __init__(self, setting, new_length, new_step):
        with open(setting) as file:
            self.clips = [line.split(" ") for line in file]

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        return open(self.clips[index][0], "rb").read(9)


class VideoClsDataset:
    def __init__(self, anno_path, data_path, mode="train", clip_len=8, frame_sample_rate=2, crop_size=224,
                 short_side_size=256, new_height=256, new_width=340, keep_aspect_ratio=True, num_segment=1, num_crop=1,
                 test_num_segment=10, test_num_crop=3, args=None):
        {imports}
        with open(anno_path) as file:
            self.paths = [line.split(" ")[0] for line in file] * test_num_segment * test_num_crop

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return functional.resize(open(self.paths[index], "rb").read(9))
'''
_FUNCTIONAL = '''
import {package}


def resize(clip):
    return {package}.{call}(clip)
'''
_ATTENTION = '''
import torch
from torch import nn

from . import orthoformer_helper


class TrajectoryAttention(nn.Module):
    def __init__(self, dim, num_heads=8, qkv_bias=False, attn_drop=0., proj_drop=0., use_original_code=True):
        super().__init__()
        assert not use_original_code
        self.qkv, self.proj_q = nn.Linear(dim, dim * 3, bias=qkv_bias), nn.Linear(dim, dim, bias=qkv_bias)
        self.proj_kv, self.proj = nn.Linear(dim, dim * 2, bias=qkv_bias), nn.Linear(dim, dim)

    def forward(self, x, seq_len=196, num_frames=8, approx="none", num_landmarks=128):
        assert x.shape[1] == 1 + seq_len * num_frames
        return self.proj(x), None
'''


def videomae(folder: Path, package: str = "math", call: str = "prod", imports: str = "pass") -> str:
    """As MCG-NJU/VideoMAE.

    Args:
        package, call: what its test views resize with. imports: a statement that they begin with.
    """
    return _written(folder / "VideoMAE", {
        "modeling_pretrain.py": _NETWORK, "modeling_finetune.py": _CLASSIFIER, "utils.py": _UTILS,
        "engine_for_pretraining.py": _ENGINE.format(utils="utils", masked=True), "datasets.py": _DATASETS,
        "kinetics.py": _KINETICS.format(imports=imports),
        "functional.py": _FUNCTIONAL.format(package=package, call=call)})


def adamae(folder: Path) -> str:
    """As wgcban/adamae, whose packages have no __init__.py."""
    return _written(folder / "adamae", {
        "models/pretrain/vit.py": _NETWORK, "msc/utils.py": _UTILS,
        "msc/engine_for_pretraining.py": "import scipy.io\n" + _ENGINE.format(utils="msc.utils", masked=False)})


def motionformer(folder: Path) -> str:
    """As facebookresearch/Motionformer."""
    return _written(folder / "Motionformer", {
        "slowfast/models/__init__.py": "import a_video_library_that_is_not_needed\n",
        "slowfast/models/orthoformer_helper.py": "", "slowfast/models/vit_helper.py": _ATTENTION})


def _written(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)
