"""MAE-ST's own parser, model, loop, checkpoints and scaler on clips in memory: its video reader has other needs.

Run by test_real_fork.py in a clone's folder; `--data_path` and VideoMAE's other flags are read and left alone.
"""

import json
import os
import sys
import types
from pathlib import Path

import torch

root = Path.cwd()
package = types.ModuleType("mae_st")
package.__path__ = [str(root)]
sys.modules["mae_st"] = package
paths = types.SimpleNamespace(open=open, mkdirs=lambda path: os.makedirs(path, exist_ok=True), ls=os.listdir,
                              exists=os.path.exists, rm=os.remove, register_handler=lambda *args, **kwargs: None)
NAMES = {"simplejson": {"dumps": json.dumps}, "psutil": {"virtual_memory": lambda: types.SimpleNamespace(
             available=0, total=1, percent=0)}, "iopath.common.file_io": {"g_pathmgr": paths},
         "mae_st.util.kinetics": {"Kinetics": None}, "torch.utils.tensorboard": {"SummaryWriter": None},
         "tensorboard.compat.tensorflow_stub.io.gfile": {"register_filesystem": None}}
for gone in ("torch.fb", "torch.fb.rendezvous", "torch.fb.rendezvous.zeus", "iopath", "iopath.common",
             "mae_st.util.env", "tensorboard", "tensorboard.compat", "tensorboard.compat.tensorflow_stub",
             "tensorboard.compat.tensorflow_stub.io", *NAMES):
    sys.modules[gone] = types.ModuleType(gone)
    vars(sys.modules[gone]).update(NAMES.get(gone, {}))

from mae_st import main_pretrain, models_mae  # noqa: E402


class Clips(torch.utils.data.Dataset):
    """Two views of each of four clips, as repeated augmentation gives them."""

    def __init__(self, **options):
        del options

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.randn(2, 3, 16, 32, 32, generator=torch.Generator().manual_seed(index)), torch.zeros(2)


def small(**options):
    """Of its class, with a class token, and `pred_t_dim` 8 of 16 frames as by default."""
    names = ("num_frames", "t_patch_size", "pred_t_dim", "cls_embed", "sep_pos_embed", "norm_pix_loss")
    return models_mae.MaskedAutoencoderViT(
        img_size=32, patch_size=8, embed_dim=64, depth=1, num_heads=2, decoder_embed_dim=32, decoder_depth=1,
        decoder_num_heads=2, **{name: options[name] for name in names})


main_pretrain.Kinetics, models_mae.small = Clips, small
parser = main_pretrain.get_args_parser()
known, rest = parser.parse_known_args()
known.model, known.no_env, known.log_dir = "small", False, None
main_pretrain.main(known)
records = [json.loads(line) for line in (Path(known.output_dir) / "log.txt").read_text().splitlines()]
assert known.pred_t_dim == 8 and records, rest
