"""One process of transformers' Trainer with the callback, under torchrun: `trainer_rank.py FOLDER`."""

import json
import os
import sys
from pathlib import Path

import torch
from tats.engines.hook.huggingface import SamplingCallback
from transformers import Trainer, TrainerCallback, TrainingArguments, VideoMAEConfig, VideoMAEForPreTraining

SMALL = {"image_size": 16, "patch_size": 4, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 1,
         "num_attention_heads": 2, "intermediate_size": 16, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1,
         "decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}


class Clips(torch.utils.data.Dataset):
    def __init__(self, count=12):
        self.pixels = torch.randn(count, 4, 3, 16, 16, generator=torch.Generator().manual_seed(1))

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return {"pixel_values": self.pixels[index]}


class Steps(TrainerCallback):
    """The policy's steps after each epoch; ends the run after `last` of them."""

    def __init__(self, sampling, last):
        self.sampling, self.last, self.steps = sampling, last, []

    def on_epoch_end(self, args, state, control, **kwargs):
        self.steps.append(self.sampling.sampling.sampler.steps)
        control.should_training_stop = len(self.steps) == self.last
        return control


def train(out, last=None, resume=None, resume_from=None, m_o=1, **more):
    """(the policy's steps by epoch, the weights of model and policy as one vector)."""
    torch.manual_seed(0)
    callback = SamplingCallback("tats", tats_heads=2, policy_head_init="xavier", sampler_lr=1e-2, mae_only_epochs=m_o,
                                update_every=3 if "save_steps" in more else 1, resume_from=resume_from)
    steps = Steps(callback, last)
    arguments = TrainingArguments(str(out), **{
        "num_train_epochs": 3, "per_device_train_batch_size": 2, "save_strategy": "epoch", "report_to": [],
        "use_cpu": True, "learning_rate": 1e-3, "seed": 3, "label_names": [], "disable_tqdm": True} | more)
    trainer = Trainer(VideoMAEForPreTraining(VideoMAEConfig(**SMALL)), arguments, train_dataset=Clips(),
                      callbacks=[callback, steps])
    trainer.train(resume_from_checkpoint=resume)
    nets = (trainer.model, callback.sampling.sampler.module)
    return steps.steps, torch.cat([value.flatten() for net in nets for value in net.state_dict().values()])


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    steps, whole = train(folder / "whole")
    train(folder / "half", last=2)
    _, resumed = train(folder / "half", resume=True)
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(
        {"steps": steps, "whole": whole.tolist(), "resumed": resumed.tolist()}))
    torch.distributed.destroy_process_group()
