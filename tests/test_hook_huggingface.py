"""transformers' two masked autoencoders with the hook: errors, a plain loop, the Trainer, saving."""

import copy
import itertools
import re
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from tats.engines.hook.huggingface import (  # noqa: E402
    SamplingCallback,
    hook_for,
    load_sampling,
    mask_argument,
    save_sampling,
    token_errors,
)
from transformers import (  # noqa: E402
    Trainer,
    TrainingArguments,
    VideoMAEConfig,
    VideoMAEForPreTraining,
    ViTMAEConfig,
    ViTMAEForPreTraining,
)

train = pytest.importorskip("trainer_rank").train

SMALL = {"image_size": 16, "patch_size": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
         "intermediate_size": 16, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1,
         "decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}
TATS = {"tats_heads": 2, "policy_head_init": "xavier", "sampler_lr": 1e-2, "mae_only_epochs": 1}


def build(kind, norm=True):
    torch.manual_seed(0)
    if kind == "videos":
        return VideoMAEForPreTraining(VideoMAEConfig(**SMALL, num_frames=4, tubelet_size=2, norm_pix_loss=norm))
    return ViTMAEForPreTraining(ViTMAEConfig(**SMALL, norm_pix_loss=norm, mask_ratio=.7))


def inputs(kind, count):
    shape = (4, 3, 16, 16) if kind == "videos" else (3, 16, 16)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(1))


KINDS = pytest.mark.parametrize("kind", ["videos", "images"])


@KINDS
@pytest.mark.parametrize("norm", [True, False])
def test_the_errors_are_those_of_the_models_own_loss_and_the_mask_is_the_chosen_one(kind, norm):
    model = build(kind, norm)
    hook = hook_for(model, "tats", **TATS | {"mae_only_epochs": 0})
    pixels = inputs(kind, 3)
    mask = hook.choose(model, pixels, None, 0)
    outputs = model(pixel_values=pixels, **mask_argument(model, mask))
    errors = token_errors(model, pixels, mask, outputs.logits)
    if kind == "images":
        assert torch.equal(outputs.mask.bool(), mask) and errors.shape == (3, 16)
        errors = errors[mask].view(3, -1)
    torch.testing.assert_close(errors.mean(), outputs.loss)
    hook.learn(errors)
    assert hook.sampler.steps == 1


@KINDS
def test_a_plain_loop_saved_and_loaded_goes_on_the_same(kind, tmp_path):
    def steps(model, hook, optimizer, epochs):
        for epoch in epochs:
            for pixels in inputs(kind, 12).split(4):
                mask = hook.choose(model, pixels, None, epoch)
                outputs = model(pixel_values=pixels, **mask_argument(model, mask))
                outputs.loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                hook.learn(token_errors(model, pixels, mask, outputs.logits))

    build(kind).save_pretrained(tmp_path)
    model = type(build(kind)).from_pretrained(tmp_path).train()   # which sets ViTMAE's fixed positions anew
    hook, optimizer = hook_for(model, "tats", **TATS), torch.optim.AdamW(model.parameters(), 1e-2)
    before = {name: value.clone() for name, value in hook.sampler.module.state_dict().items()}
    steps(model, hook, optimizer, [0])
    assert all(torch.equal(before[name], value) for name, value in hook.sampler.module.state_dict().items())
    steps(model, hook, optimizer, [1])
    assert any(not torch.equal(before[name], value) for name, value in hook.sampler.module.state_dict().items())
    model.save_pretrained(tmp_path)
    save_sampling(tmp_path, hook)
    again = type(model).from_pretrained(tmp_path)
    other, second = hook_for(again, "tats", **TATS), torch.optim.AdamW(again.parameters(), 1e-2)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    load_sampling(tmp_path, other)
    for one in ((model, hook, optimizer), (again.train(), other, second)):
        torch.manual_seed(5)
        steps(*one, [2])
    for first, last in ((model, again), (hook.sampler.module, other.sampler.module)):
        for name, value in first.state_dict().items():
            torch.testing.assert_close(last.state_dict()[name], value, msg=lambda m, n=name: f"{n}: {m}")


class Clips(torch.utils.data.Dataset):
    def __init__(self, kind):
        self.pixels = inputs(kind, 12)

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return {"pixel_values": self.pixels[index]}


@KINDS
@pytest.mark.parametrize("accumulated", [1, 2])
def test_in_the_trainer_with_a_callback(kind, tmp_path, accumulated, monkeypatch):
    pytest.importorskip("accelerate")
    # In this folder `datasets` is ours, and not the library that the Trainer would ask.
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)
    callback = SamplingCallback("tats", **TATS)
    arguments = TrainingArguments(str(tmp_path), max_steps=12 // accumulated, per_device_train_batch_size=3,
                                  gradient_accumulation_steps=accumulated, save_strategy="no", report_to=[],
                                  use_cpu=True, learning_rate=1e-3, seed=3, label_names=[], disable_tqdm=True)
    trainer = Trainer(build(kind), arguments, train_dataset=Clips(kind), callbacks=[callback])
    trainer.train()
    history = [line for line in trainer.state.log_history if "visible_tokens" in line]
    assert [line["epoch"] for line in history] == [1, 2, 3] and callback.sampling.options.epochs == 3
    assert ["entropy_share" in line for line in history] == [False, True, True]
    assert callback.sampling.sampler.steps == 2 * 4 // accumulated
    assert not trainer.model._forward_hooks and not trainer.model._forward_pre_hooks


class Stream(torch.utils.data.IterableDataset):
    """Clips without an end, as a streaming data set has them."""

    def __iter__(self):
        return ({"pixel_values": one} for one in itertools.cycle(inputs("videos", 4)))


def test_a_data_set_without_a_length_has_no_known_epochs(tmp_path, monkeypatch, caplog):
    """The Trainer then counts sys.maxsize epochs, of which the first never ends."""
    pytest.importorskip("accelerate")
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)

    def train(**more):
        callback = SamplingCallback("tats", **TATS | more)
        arguments = TrainingArguments(str(tmp_path), max_steps=2, per_device_train_batch_size=2, save_strategy="no",
                                      report_to=[], use_cpu=True, label_names=[], disable_tqdm=True)
        Trainer(build("videos"), arguments, train_dataset=Stream(), callbacks=[callback]).train()
        return callback.sampling.options

    assert train().epochs is None
    assert any(record.levelname == "WARNING" and "masks are random before epoch 1" in record.message
               for record in caplog.records)
    with pytest.raises(ValueError, match="needs to know the run's length"):
        train(sampler_lr_final=0.)


@pytest.mark.parametrize(("saved", "resumed_at"), [("epoch", 4), ("steps", 2)], ids=["epoch", "middle of an epoch"])
def test_a_resumed_trainer_goes_on_to_the_bit(saved, resumed_at, tmp_path, monkeypatch):
    """Eight steps of k = 3 against four, or two, and the rest after a resume; from outside of output_dir, too."""
    pytest.importorskip("accelerate")
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)
    more = {"num_train_epochs": 2, "per_device_train_batch_size": 3, "save_strategy": saved, "save_steps": 2, "m_o": 0}
    _, whole = train(tmp_path / "whole", **more)
    checkpoint = tmp_path / "whole" / f"checkpoint-{resumed_at}"
    steps, again = train(tmp_path / "whole", resume=str(checkpoint), **more)
    assert len(steps) == (1 if saved == "epoch" else 2) and torch.equal(whole, again)
    if saved == "epoch":
        _, elsewhere = train(tmp_path / "other", resume=str(checkpoint), resume_from=checkpoint, **more)
        assert torch.equal(whole, elsewhere)
        shutil.copytree(tmp_path / "other" / "checkpoint-8", tmp_path / "third" / "checkpoint-4")
        with pytest.raises(ValueError, match="resume_from"):         # the policy there is another run's
            train(tmp_path / "third", resume=str(checkpoint), **more)
        (checkpoint / "sampling.pt").unlink()
        with pytest.raises(ValueError, match="without the sampler"):
            train(tmp_path / "whole", resume=str(checkpoint), **more)


def test_other_models_and_ratios_are_refused():
    with pytest.raises(ValueError, match="neither"):
        hook_for(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="mask_ratio"):
        hook_for(build("images"), "tats", .9)


def test_the_pages_recipe_is_short():
    """Lines of the hook in the loop, saving included, and the two that they replace: a mask and the model's call."""
    section = (Path(__file__).parents[1] / "docs/fork.md").read_text().split("\n## transformers\n")[1]
    recipe = section.split("```python\n")[1].split("\n```")[0].splitlines()
    ours = [line for line in recipe if re.search("sampling|mask_argument|token_errors", line)]
    assert len(ours) + 2 == 10 and any("save_sampling(" in line for line in ours)
