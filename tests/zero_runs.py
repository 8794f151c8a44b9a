"""Fine-tuning under ZeRO in whole and in parts, several runs in the same two processes; started by torchrun.

    torchrun --nproc_per_node=2 tests/zero_runs.py FOLDER LISTS CASE...      (CASE: STAGE or STAGE:ema)

FOLDER/found.json gets, for each case: `differs`, the largest difference of the weights, `ema`, that of the averages,
`shared`, how many tensors the processes share out, and `refused`, what is said to a change of --weight_decay.
"""

import json
import sys
from pathlib import Path

import torch
from tats.engines.core import runtime
from tats.engines.run_class_finetuning import main as finetune
from tats.models import registry

# Wide enough that stage 3 shares its matrices out: those above 1e5 elements.
registry._TABLE["vit_wide"] = (registry.VisionTransformer, {**registry._TINY, "embed_dim": 192, "depth": 2,
                                                            "num_heads": 4})
WIDE = ["--model", "vit_wide", "--num_frames", "4", "--data_set", "moving-shapes",
        "--batch_size", "4", "--num_sample", "1", "--num_workers", "0", "--warmup_epochs", "0", "--lr", "0.003",
        "--device", "cpu", "--enable_deepspeed", "--disable_eval_during_finetuning", "--save_ckpt_freq", "1"]


def largest_difference(first, second):
    assert first.keys() == second.keys()
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


def case(folder, lists, name):
    stage, _, ema = name.partition(":")
    averaged = ["--model_ema", "--model_ema_decay", ".5"] if ema else []
    words = [*WIDE, "--data_path", lists, "--zero_stage", stage, *averaged]

    def run(out, epochs, *more):
        return finetune([*words, "--output_dir", str(folder / f"{stage}{ema}-{out}"), "--epochs", epochs, *more])

    run("whole", "2")
    run("parts", "2", "--save_every_steps", "2", "--keep_last", "0")
    parts = folder / f"{stage}{ema}-parts"
    runtime.start("cpu").barrier()
    if runtime.start("cpu").is_main:   # stopped within the first epoch
        for path in (*parts.glob("checkpoint-*.pth"), *(parts / f"epoch-1-step-{step}.pth" for step in (4, 6))):
            path.unlink()
    runtime.start("cpu").barrier()
    run("parts", "2")
    states = [torch.load(folder / f"{stage}{ema}-{out}/checkpoint-1.pth", weights_only=True)
              for out in ("whole", "parts")]
    refused = None
    try:
        run("parts", "3", "--change", "weight_decay", "0")
    except ValueError as error:
        refused = str(error)
    averages = [state.get("model_ema") for state in states]
    return {"differs": largest_difference(states[0]["model"], states[1]["model"]), "refused": refused,
            "ema": largest_difference(*averages) if ema else None,
            "shared": sum(value.numel() > 100_000 for value in states[0]["model"].values())}


def main():
    folder, lists = Path(sys.argv[1]), sys.argv[2]
    here = runtime.start("cpu")
    runtime.stop = lambda *_: None   # one group for all runs
    found = {name: case(folder, lists, name) for name in sys.argv[3:]}
    if here.is_main:
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
