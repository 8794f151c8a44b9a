"""Flags that do nothing without another one, and which of them a run was given in vain."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

Values = Mapping[str, Any]


def _mixes(values: Values) -> bool:
    return bool(values["mixup"] or values["cutmix"] or values["cutmix_minmax"])


# flag -> (what it needs, whether that is there). What a program does not have is not asked.
NEEDS: dict[str, tuple[str, Callable[[Values], bool]]] = {
    "cache_gb": ("--cache_dir", lambda values: values["cache_dir"] not in ("", "none")),
    "momentum": ("another --opt", lambda values: not values["opt"].startswith("adam")),
    "vis_path": ("--vis_clips above 0", lambda values: values["vis_clips"] > 0),
    "vis_freq": ("--output_dir", lambda values: bool(values["output_dir"])),
    "model_ema_decay": ("--model_ema", lambda values: values["model_ema"]),
    "model_ema_force_cpu": ("--model_ema", lambda values: values["model_ema"]),
    "train_interpolation": ("--aa", lambda values: values["aa"] not in ("", "none")),
    "remode": ("--reprob above 0", lambda values: values["reprob"] > 0),
    "recount": ("--reprob above 0", lambda values: values["reprob"] > 0),
    "mixup_prob": ("--mixup or --cutmix", _mixes),
    "mixup_mode": ("--mixup or --cutmix", _mixes),
    "mixup_switch_prob": ("--mixup and --cutmix", lambda values: bool(values["mixup"] and values["cutmix"])),
    "knn_k": ("--eval_mode knn", lambda values: values["eval_mode"] == "knn"),
    "knn_temperature": ("--eval_mode knn", lambda values: values["eval_mode"] == "knn"),
    "zero_stage": ("--enable_deepspeed", lambda values: values["enable_deepspeed"]),
}


def given_in_vain(settings: Any) -> list[str]:
    """"--FLAG (it needs ...)" for each flag that has not its default, and not what it needs either.

    Args:
        settings: of a training program, by topic.
    """
    topics = [getattr(settings, item.name) for item in fields(settings)]
    values = {item.name: getattr(topic, item.name) for topic in topics for item in fields(topic)}
    usual = {item.name: item.default for topic in topics for item in fields(topic)}
    return [f"--{name} (it needs {needed})" for name, (needed, there) in NEEDS.items()
            if name in values and values[name] != usual[name] and not there(values)]
