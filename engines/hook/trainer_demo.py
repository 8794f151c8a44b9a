"""transformers.Trainer with TATS on moving shapes: trained, saved, given back by from_pretrained, measured.

    bash run_scripts/demo_transformers.sh

The model is transformers' VideoMAEForPreTraining, the size and the settings are those of run_scripts/demo.sh. The same
command again goes on from the newest checkpoint of the Trainer.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments, VideoMAEForPreTraining, set_seed
from transformers.trainer_utils import get_last_checkpoint

from ...datasets.clips import ClipShape, PretrainClips
from ...datasets.files import json_text, write_whole
from ...datasets.lists.epoch_order import EpochSampler
from ...datasets.lists.list_file import read_list
from ...datasets.moving_shapes import ShapesConfig, truth_for, write_moving_shapes
from ...datasets.program import run_program
from ...datasets.transforms.pretraining import pretrain_transform
from ...masking import RandomMasking
from ...models import create_model
from ...models.export_hf import write_folder
from ...models.positions import sincos3d_table
from ..core.logs import set_up_logging
from ..motion.metrics import MotionMetrics, motion_metrics
from ..training.batches import Normalizer
from .huggingface import SamplingCallback, grid_of, hook_for, load_sampling, save_sampling
from .looking import probabilities
from .sampling import SamplingHook

FRAMES, SIDE, RATIO = 16, 24, 0.75


class Clips(Dataset):
    """All videos of a split in memory, normalised, as `pixel_values` (T, 3, H, W)."""

    def __init__(self, data: Path, split: str):
        clips = read_list(data / f"{split}.csv")
        unmasked = RandomMasking((FRAMES // 2, SIDE // 4, SIDE // 4), RATIO)
        dataset = PretrainClips(clips, ClipShape(FRAMES, 1), pretrain_transform("resize", SIDE), unmasked)
        loader = DataLoader(dataset, 64, sampler=EpochSampler(len(clips), shuffle=False, drop_last=False))
        self.rows = [truth_for(data, split).row_of(path) for path in clips.paths]
        self.videos = Normalizer(torch.device("cpu")).clips(torch.cat([batch.video for batch in loader]))

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {"pixel_values": self.videos[row].transpose(0, 1)}


class ShapesVideoMAE(VideoMAEForPreTraining):
    """transformers' model with a sinusoid of each of t, h and w in the place of its sinusoid over the token's index.

    With theirs a model of this size stays for more than a hundred steps where it predicts the mean patch. Neither table
    is saved: both are made in the constructor.
    """

    def __init__(self, config):
        super().__init__(config)
        with torch.device("cpu"):   # from_pretrained builds the model without memory
            grid = grid_of(self)
            self.videomae.embeddings.position_embeddings = sincos3d_table(grid, config.hidden_size, base=2.0)
            self.position_embeddings = sincos3d_table(grid, config.decoder_hidden_size, base=2.0)


def tiny_videomae() -> ShapesVideoMAE:
    """In the size and with the first weights of `pretrain_tats_tiny`."""
    with TemporaryDirectory() as folder:
        write_folder(Path(folder), create_model("pretrain_tats_tiny", pos_embed="sincos1d", pos_base=10000.0))
        return ShapesVideoMAE.from_pretrained(folder)


def measure(model: VideoMAEForPreTraining, sampling: SamplingHook, data: Path, split: str = "val") -> MotionMetrics:
    """What the policy of `sampling` looks at in held-out clips."""
    clips, truth, grid = Clips(data, split), truth_for(data, split), grid_of(model)
    moving, textured = (torch.stack([torch.as_tensor(kind(row, range(FRAMES), grid)) for row in clips.rows])
                        for kind in (truth.moving, truth.static_texture))
    pi = torch.cat([probabilities(sampling, model, part.transpose(1, 2)) for part in clips.videos.split(64)])
    masks = sampling.sampler.module.sample(pi)
    return motion_metrics(pi, masks, moving, textured)


def get_parser() -> argparse.ArgumentParser:
    """The program's command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--data", type=Path, help="folder of moving shapes, written there if it is empty; OUT/data")
    parser.add_argument("--mask_type", default="tats", help="a strategy with a sampler")
    parser.add_argument("--epochs", type=int, default=13, help="of 64 steps")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train, save, load again, measure; prints and writes OUT/result.json."""
    args = get_parser().parse_args(argv)
    set_up_logging(True)
    data = args.data or args.out / "data"
    if not (data / "test.csv").is_file():
        write_moving_shapes(ShapesConfig(data))
    set_seed(args.seed)
    model = tiny_videomae()
    training = TrainingArguments(
        str(args.out), num_train_epochs=args.epochs, per_device_train_batch_size=16, learning_rate=3e-3,
        lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr": 3e-4}, warmup_steps=50,
        weight_decay=0.05, adam_beta2=0.95, max_grad_norm=0, seed=args.seed, dataloader_drop_last=True,
        save_strategy="epoch", save_total_limit=2, logging_steps=64, report_to=[], label_names=[], use_cpu=True,
        disable_tqdm=True)
    callback = SamplingCallback(args.mask_type, mask_ratio=RATIO, mae_only_epochs=3, sampler_lr=1e-3)
    trainer = Trainer(model, training, train_dataset=Clips(data, "train"), callbacks=[callback])
    newest = get_last_checkpoint(args.out)
    trainer.train(resume_from_checkpoint=newest)
    folder = args.out / "model"
    trainer.save_model(folder)
    save_sampling(folder, callback.sampling)
    again = ShapesVideoMAE.from_pretrained(folder)
    sampling = hook_for(again, args.mask_type, mask_ratio=RATIO)
    load_sampling(folder, sampling)
    torch.manual_seed(0)
    result = measure(again, sampling, data)._asdict() | {"steps": trainer.state.global_step}
    write_whole(args.out / "result.json", json_text(result, indent=1) + "\n")
    sys.stdout.write(json_text(result) + "\n")


if __name__ == "__main__":
    run_program(main)
