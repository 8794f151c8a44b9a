"""Steps 7 and 8: the real programs, on small videos with known motion, in processes of their own."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

from .steps import Outcome, Place, verdict

AUROC, MOVING_AUROC = .9, .85   # the demo's policy reaches these on the CPU
DEMO = ("--model", "pretrain_tats_tiny", "--data_set", "moving-shapes", "--mask_ratio", "0.75", "--pretrain_aug",
        "resize", "--lr", "0.048", "--min_lr", "0.0048", "--warmup_epochs", "0", "--sampler_lr", "1e-3",
        "--mask_type", "tats", "--vis_freq", "1", "--print_freq", "5")


def videos(place: Place) -> Path:
    """A folder of moving shapes, written once."""
    folder = place.folder / "shapes"
    if not (folder / "test.csv").is_file():
        counts = (24, 8, 8) if place.small else (1024, 128, 16)
        run("tats.datasets.moving_shapes", "--out", str(folder), "--train", str(counts[0]), "--val", str(counts[1]),
            "--test", str(counts[2]))
    return folder


def run(module: str, *arguments: str, timeout: float = 500) -> str:
    """What a program of the package prints to stderr.

    Raises:
        ValueError: it ends with another code than 0; the message holds its last line.
    """
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False,
                          timeout=timeout)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ValueError(f"{module} ended with {done.returncode}: {last}")
    return done.stderr


def flags(place: Place, out: Path, epochs: int) -> list[str]:
    """Of run_mae_pretraining. The policy acts from the second epoch, on a GPU from the fourth."""
    small = ("--batch_size", "8", "--mae_only_epochs", "1", "--num_workers", "1", "--vis_clips", "2")
    large = ("--batch_size", "16", "--mae_only_epochs", "3", "--num_workers", "4", "--warmup_steps", "50")
    return [*DEMO, *(small if place.small else large), "--data_path", str(videos(place) / "train.csv"),
            "--output_dir", str(out), "--epochs", str(epochs), "--device", place.device.type]


def train_on_moving_shapes(place: Place) -> Outcome:
    """The whole program with workers, progress lines and pictures; then what its policy looks at."""
    out, epochs = place.folder / "shapes-run", 2 if place.small else 13
    run("tats.engines.run_mae_pretraining", *flags(place, out, epochs))
    records = [json.loads(line) for line in (out / "log.txt").read_text().splitlines()]
    run("tats.engines.measure_masks", "--checkpoint", str(out / f"checkpoint-{epochs - 1}.pth"), "--data",
        str(videos(place)), "--out", str(out / "masks.json"))
    after = {name: math.nan if value is None else value
             for name, value in json.loads((out / "masks.json").read_text())[1].items()}
    faults = []
    if [record["epoch"] for record in records] != list(range(epochs)):
        faults.append(f"log.txt has the epochs {[record['epoch'] for record in records]}")
    if not list((out / "pictures").glob("*.png")):
        faults.append("no pictures were drawn")
    if not place.small:
        faults += [f"{name} is {after[name]:.3f}, below {least}" for name, least in
                   (("auroc", AUROC), ("moving_auroc", MOVING_AUROC)) if not after[name] >= least]
    numbers = {"masks": after, "last": records[-1]}
    return verdict(faults, f"AUROC {after['auroc']:.3f}, moving AUROC {after['moving_auroc']:.3f}, "
                   f"{records[-1]['train_data_share']:.0%} of the time waiting for clips", numbers)


def stop_and_go_on(place: Place) -> Outcome:
    """SIGTERM in the policy's phase: the program ends with 0 and a checkpoint, and the same command finishes."""
    out, epochs = place.folder / "stopped-run", 3 if place.small else 5
    command = flags(place, out, epochs)
    process = subprocess.Popen([sys.executable, "-m", "tats.engines.run_mae_pretraining", *command],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        acting = "epoch 0/" if place.small else "epoch 2/"   # the line at the end of the last epoch without the policy
        seen = [line for line in _until(process, acting)]
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=place.limit)[1]
    finally:
        if process.poll() is None:
            process.kill()
    faults = []
    if process.returncode:
        faults.append(f"after SIGTERM it ended with {process.returncode}: {(rest or seen[-1]).splitlines()[-1]}")
    kept = sorted(out.glob("epoch-*-step-*.pth"))
    if not kept:
        faults.append("SIGTERM left no checkpoint within the epoch")
    said = run("tats.engines.run_mae_pretraining", *command)
    if kept and f"resumed from {kept[-1]}" not in said:
        faults.append("the same command did not go on from that checkpoint")
    logged = [json.loads(line)["epoch"] for line in (out / "log.txt").read_text().splitlines()]
    if logged != list(range(epochs)):
        faults.append(f"log.txt has the epochs {logged}")
    return verdict(faults, f"stopped at {kept[-1].stem if kept else '-'}, went on to the end")


def _until(process: subprocess.Popen, text: str):
    """Lines of stderr up to the one with `text`.

    Raises:
        ValueError: the program ended before.
    """
    line = ""
    for line in process.stderr:
        yield line
        if text in line:
            return
    raise ValueError(f"the run ended before SIGTERM was sent: {line.strip()}")
