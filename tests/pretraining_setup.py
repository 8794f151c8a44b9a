"""Toy runs for the engine tests: a tiny model, clips in memory, learners that can be compared."""

import torch
from tats.datasets.clips import PretrainSample
from tats.engines.config.pretraining import SamplerConfig, resolve_recipe
from tats.engines.engine_for_pretraining import PretrainSetup
from tats.engines.engine_for_pretraining_ppo import EpisodeBuffer, PPOTraining
from tats.engines.pretrain.interface import grid_of, patch_size_of
from tats.engines.pretrain.ppo import EntropyCoefficient
from tats.engines.pretrain.reconstruction import Reconstruction
from tats.engines.pretrain.rewards import reward_of
from tats.engines.training.batches import Normalizer
from tats.engines.training.learner import Learner
from tats.engines.training.optim import make_optimizer, parameter_groups
from tats.masking import MASKINGS, RandomMasking, TokenGrid
from tats.models import PretrainVisionTransformer

CPU = torch.device("cpu")


def tiny_mae(grid=(4, 3, 3), seed=0):
    torch.manual_seed(seed)
    return PretrainVisionTransformer(img_size=(grid[1] * 4, grid[2] * 4), patch_size=4, num_frames=2 * grid[0],
                                     encoder_embed_dim=24, encoder_depth=1, encoder_num_heads=2, decoder_embed_dim=24,
                                     decoder_depth=1, decoder_num_heads=2, qkv_bias=True)


def tiny_sampler(name="tats", grid=(4, 3, 3), seed=1, **options):
    torch.manual_seed(seed)
    if name == "tats":
        options = {"num_heads": 2, "head_init": "xavier"} | options
    return MASKINGS[name].sampler(TokenGrid(*grid), 24, mask_ratio=0.75, **options)


def learner(net, lr=1e-2, **options):
    groups = parameter_groups(net, 0.05)
    return Learner(net, make_optimizer(groups, "adamw", betas=(0.9, 0.95)), lambda step: lr, **options)


def clips(count=8, grid=(4, 3, 3), seed=0):
    """(videos uint8, masks, keys) of `count` clips with something to learn in them."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, 2 * grid[0], 4 * grid[1], 4 * grid[2])
    videos = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    per_clip = RandomMasking(TokenGrid(*grid), 0.75)
    torch.manual_seed(seed)
    return PretrainSample(videos, torch.stack([per_clip() for _ in range(count)]), torch.arange(count) + 1000 * seed)


def loader(batches, batch_size, **options):
    """A list of batches of `batch_size` clips, in the shape that a DataLoader gives."""
    videos, masks, keys = clips(batches * batch_size, **options)
    return [PretrainSample(*part) for part in
            zip(videos.split(batch_size), masks.split(batch_size), keys.split(batch_size), strict=True)]


def setup(mae, update_freq=1, **options):
    return PretrainSetup(CPU, Normalizer(CPU), Reconstruction(), patch_size_of(mae), update_freq, **options)


def ppo_training(mae, update_freq=1, entropy=6e-5, epochs=None, **flags):
    """Algorithm 1's settings with these flags of `SamplerConfig`; the policy acts from the first epoch on."""
    config = resolve_recipe(SamplerConfig(**{"mae_only_epochs": 0} | flags))
    reward = reward_of(config, grid_of(mae))
    return PPOTraining(setup(mae, update_freq, reward=reward), config, EntropyCoefficient(entropy), epochs)


def snapshot(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def changed(net, before):
    return {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}


__all__ = ["CPU", "EpisodeBuffer", "changed", "clips", "learner", "loader", "ppo_training", "setup", "snapshot",
           "tiny_mae", "tiny_sampler"]
