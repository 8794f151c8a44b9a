"""Clips that are longer than their videos: a training says so once, at its first batch."""

import pytest
import torch
from tats.engines import run_class_finetuning, run_mae_pretraining
from tats.engines.runs.loading import count_held
from tiny_runs import finetuning_flags, small_pretraining_flags

PROGRAMS = {"pre-training": (run_mae_pretraining.main, small_pretraining_flags),
            "fine-tuning": (run_class_finetuning.main, finetuning_flags)}


def test_a_clip_is_held_where_its_last_frame_is_the_one_before_it():
    videos = torch.zeros(4, 3, 3, 2, 2, dtype=torch.uint8)
    videos[1, 0, 2, 0, 0] = 1   # its last frame alone is another one
    videos[2, :, 1:] = 7        # it moves, then stands
    videos[3, 2, 0, 1, 1] = 1
    assert count_held(videos) == 3
    assert count_held(videos[:, :, :1]) == 0   # still images


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(("stride", "said"), [("1000", 1), ("1", 0)])
def test_a_stride_too_large_for_the_videos_is_said_once(name, stride, said, shapes, tmp_path, caplog):
    main, flags = PROGRAMS[name]
    main(flags(shapes, tmp_path, "--sampling_rate", stride, "--epochs", "2"))
    assert caplog.text.count("of the first batch end with a repeated frame") == said
