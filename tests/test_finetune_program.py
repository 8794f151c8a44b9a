"""The program: train, validate, test, resume; frozen evaluation; and every way in which its input can be wrong."""

import json
import os
import re

import numpy as np
import pytest
import torch
from tats.datasets.labelled import Sampling, TestViews, Views
from tats.datasets.lists.list_file import read_list
from tats.engines import extract_features
from tats.engines.config.finetuning import Settings
from tats.engines.core import runtime
from tats.engines.run_class_finetuning import get_parser, main
from tats.engines.run_mae_pretraining import main as pretrain_main
from tats.engines.runs.finetuning_build import unseen_classes
from tats.engines.runs.finetuning_run import Finetuning
from tats.models import create_model
from tiny_runs import error_line, small_pretraining_flags
from tiny_runs import finetuning_flags as flags


@pytest.fixture(scope="module")
def finished(shapes, tmp_path_factory):
    """A run of two epochs with all that can be kept, and what it returned."""
    out = tmp_path_factory.mktemp("finetuned")
    return out, main(flags(shapes, out, "--save_ckpt_freq", "1", "--model_ema", "--model_ema_decay", "0.5"))


def test_what_a_run_leaves_behind(finished):
    out, result = finished
    assert json.loads((out / "result.json").read_text()) == result
    lines = [json.loads(line) for line in (out / "log.txt").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(0, 3), (1, 6)]
    assert {"train_loss", "val_acc1", "val_acc5", "val_loss", "val_ema_acc1"} <= lines[0].keys()
    assert {"checkpoint-0.pth", "checkpoint-1.pth", "checkpoint-best.pth", "settings.json"} <= set(os.listdir(out))
    state = torch.load(out / "checkpoint-1.pth", weights_only=True)
    net = create_model(state["config"]["name"], **state["config"]["kwargs"])
    net.load_state_dict(state["model"])
    assert list(state["model_ema"]) == list(state["model"])
    assert not torch.equal(state["model_ema"]["head.weight"], state["model"]["head.weight"])
    assert result["num_expected"] == result["num_evaluated"] == 8 and result["unreadable"] == []


def test_eval_alone_repeats_the_test(finished, shapes, tmp_path):
    out, result = finished
    more = ("--eval", "--finetune", str(out / "checkpoint-1.pth"))
    assert main(flags(shapes, tmp_path / "a", *more)) == result
    assert main(flags(shapes, out, "--eval")) == result   # the newest of the folder


@pytest.mark.parametrize("which", ["best", "ema"])
def test_eval_of_other_weights(which, finished, shapes):
    """They are what is tested: the same as handing them over as a file of plain weights."""
    out, _ = finished
    name, key = {"best": ("checkpoint-best.pth", "model"), "ema": ("checkpoint-1.pth", "model_ema")}[which]
    result = main(flags(shapes, out, "--eval", "--test_weights", which))
    torch.save({"model": torch.load(out / name, weights_only=True)[key]}, out / "plain.pt")
    plain = main([*flags(shapes, "", "--eval"), "--finetune", str(out / "plain.pt")])
    assert result["test_weights"] == which
    same = ("top1", "top5", "per_class", "num_evaluated")
    assert [result[name] for name in same] == [plain[name] for name in same]


def test_trained_then_tested_weights_are_the_best(shapes, tmp_path):
    out = tmp_path / "run"
    during = main(flags(shapes, out, "--test_weights", "best"))
    assert during == main(flags(shapes, out, "--eval", "--test_weights", "best"))


def test_resumed_equals_uninterrupted(finished, shapes, tmp_path, caplog):
    """From the checkpoint of the first epoch on, bit by bit: crops, RandAugment, erasing, mixing, stochastic depth."""
    out, _ = finished
    (tmp_path / "checkpoint-0.pth").write_bytes((out / "checkpoint-0.pth").read_bytes())
    with caplog.at_level("INFO"):
        main(flags(shapes, tmp_path, "--save_ckpt_freq", "1", "--model_ema", "--model_ema_decay", "0.5"))
    assert "resumed from" in caplog.text
    whole, resumed = (torch.load(folder / "checkpoint-1.pth", weights_only=True) for folder in (out, tmp_path))
    for part in ("model", "model_ema"):
        for name, value in whole[part].items():
            assert torch.equal(value, resumed[part][name]), name
    assert whole["step"] == resumed["step"] and whole["best"] == resumed["best"]


def test_accumulated_steps_are_the_steps_of_the_whole_batch(shapes, tmp_path):
    """Without anything random: 4 x 2 micro-batches against 8 at once, scaled to the same learning rate.

    SGD, whose step is as long as the gradient: AdamW would hide a wrong scale, and enlarges rounding.
    """
    torch.manual_seed(1)
    start = create_model("vit_tats_tiny", num_classes=8, init_scale=1.0).state_dict()
    torch.save({"model": start}, tmp_path / "start.pth")
    still = ("--aa", "", "--mixup", "0", "--cutmix", "0", "--reprob", "0", "--drop_path", "0", "--smoothing", "0.1",
             "--disable_eval_during_finetuning", "--epochs", "1", "--no_auto_resume", "--opt", "sgd", "--layer_decay",
             "1", "--finetune", str(tmp_path / "start.pth"))
    main(flags(shapes, tmp_path / "a", *still))
    main(flags(shapes, tmp_path / "b", *still, "--batch_size", "4", "--update_freq", "2"))
    first, second = (torch.load(tmp_path / run / "checkpoint-0.pth", weights_only=True) for run in "ab")
    assert first["step"] == second["step"] == 3
    for name, value in first["model"].items():
        moved, again = value - start[name], second["model"][name] - start[name]
        assert moved.norm() > 0, name
        assert (moved - again).norm() < 0.01 * moved.norm(), name


def test_linear_probe_moves_the_head_alone(finished, shapes, tmp_path):
    out, _ = finished
    result = main(flags(shapes, tmp_path, "--eval_mode", "linear", "--finetune", str(out / "checkpoint-1.pth")))
    before, after = (torch.load(folder / "checkpoint-1.pth", weights_only=True)["model"] for folder in (out, tmp_path))
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"head.weight", "head.bias"}
    assert result["eval_mode"] == "linear"
    again = main(flags(shapes, tmp_path / "test", "--eval", "--finetune", str(tmp_path / "checkpoint-1.pth")))
    assert again["eval_mode"] == "linear"   # what the weights are, whatever the flag's default


def test_nearest_neighbours_of_the_training_videos_are_themselves(finished, shapes, tmp_path):
    out, _ = finished
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text((shapes / "train.csv").read_text())
    result = main([*flags(tmp_path, ""), "--eval_mode", "knn", "--knn_k", "1", "--finetune",
                   str(out / "checkpoint-1.pth")])
    assert (result["top1"], result["num_expected"]) == (100.0, 24)


def test_neighbours_of_other_weights_take_no_result_s_place(finished, shapes, tmp_path, caplog):
    out, _ = finished
    known = [*flags(shapes, tmp_path), "--eval_mode", "knn"]
    first = main([*known, "--finetune", str(out / "checkpoint-1.pth")])
    main([*known, "--finetune", str(out / "checkpoint-0.pth")])
    assert json.loads((tmp_path / "replaced-1/result.json").read_text())["source"] == first["source"]
    main(known)
    assert "has learned nothing" in caplog.text and (tmp_path / "replaced-2/result.json").is_file()


def test_a_test_of_which_nothing_can_be_read_has_no_result(finished, shapes, tmp_path):
    out, _ = finished
    (tmp_path / "test.csv").write_text(f"{tmp_path}/gone.mp4 1\n{tmp_path}/away.mp4 2\n")
    with pytest.raises(ValueError, match="none of the 2 videos of .*test.csv can be read"):
        main(flags(tmp_path, tmp_path / "out", "--eval", "--finetune", str(out / "checkpoint-1.pth")))
    assert not (tmp_path / "out/result.json").exists()


def unreadable(folder, name="test.csv"):
    (folder / name).write_text(f"{folder}/gone.mp4 1\n{folder}/away.mp4 2\n")
    return folder / name


@pytest.mark.parametrize("split", ["val", "test"])
def test_lists_of_which_nothing_can_be_read_are_refused_before_training(shapes, tmp_path, split):
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.csv").write_text((shapes / f"{name}.csv").read_text())
    unreadable(tmp_path, f"{split}.csv")
    with pytest.raises(ValueError, match=f"none of the 2 videos of .*{split}.csv can be read.*gone.mp4"):
        main(flags(tmp_path, tmp_path / "out"))
    assert not (tmp_path / "out/log.txt").exists()


def test_a_validation_of_which_nothing_can_be_read_any_more_keeps_what_was_trained(shapes, tmp_path):
    """Its videos go away after the start: the run ends with one line, saved after its last step."""
    from unittest.mock import patch

    from tats.engines.runs.evaluator import Evaluator

    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text((shapes / f"{name}.csv").read_text())
    unreadable(tmp_path, "val.csv")
    with patch.object(Evaluator, "must_read_some"), pytest.raises(ValueError, match="val.csv can be read"):
        main(flags(tmp_path, tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").glob("*.pth")] == ["epoch-0-step-3.pth"]


@pytest.mark.parametrize("windows", [[], ["--windows", "4", "4"]])
def test_features_of_videos_of_which_none_can_be_read_are_not_written(finished, tmp_path, windows):
    from tats.engines.extract_features import main as extract_features

    out, _ = finished
    (tmp_path / "f.npz").write_text("from before")
    with pytest.raises(ValueError, match="none of the 2 videos of .*test.csv can be read.*gone.mp4"):
        extract_features(["--checkpoint", str(out / "checkpoint-1.pth"), "--list", str(unreadable(tmp_path)), "--out",
                          str(tmp_path / "f.npz"), "--num_workers", "0", "--device", "cpu", *windows])
    assert {path.name for path in tmp_path.iterdir()} == {"test.csv", "f.npz"}
    assert (tmp_path / "f.npz").read_text() == "from before"


def test_features_of_a_list(finished, shapes, tmp_path):
    """Against the network's own forward, with a broken video among them."""
    out, _ = finished
    lines = (shapes / "test.csv").read_text().splitlines()[:3]
    (tmp_path / "list.csv").write_text("\n".join([lines[0], str(tmp_path / "gone.mp4") + " 1", *lines[1:]]))
    extract_features.main(["--checkpoint", str(out / "checkpoint-1.pth"), "--list", str(tmp_path / "list.csv"),
                           "--out", str(tmp_path / "f.npz"), "--num_workers", "0", "--data_set", "moving-shapes",
                           "--device", "cpu"])
    with np.load(tmp_path / "f.npz") as stored:
        assert stored["readable"].tolist() == [True, False, True, True]
        assert stored["features"].shape == (4, 96) and stored["features"].dtype == np.float32
        assert not stored["features"][1].any() and stored["labels"].shape == (4,)
        assert stored["paths"][1] == str(tmp_path / "gone.mp4")
        features = torch.from_numpy(stored["features"])
    state = torch.load(out / "checkpoint-1.pth", weights_only=True)
    net = create_model(state["config"]["name"], **state["config"]["kwargs"])
    net.load_state_dict(state["model"])
    one_view = TestViews(read_list(tmp_path / "list.csv"), Sampling("dense", net.patch_embed.num_frames, 1),
                         Views(1, 1, net.patch_embed.img_size[0]))
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in ((.485, .456, .406), (.229, .224, .225)))
    for row in (0, 2, 3):
        clip = (one_view[row].videos / 255 - mean) / std
        with torch.no_grad():
            torch.testing.assert_close(features[row], net.eval().forward_features(clip)[0], atol=1e-4, rtol=1e-4)


def test_features_of_a_pretrained_encoder(shapes, tmp_path):
    mae = create_model("pretrain_tats_tiny", pos_embed="sincos1d")
    described = {"name": "pretrain_tats_tiny", "kwargs": {"pos_embed": "sincos1d"}}
    torch.save({"model": mae.state_dict(), "config": described}, tmp_path / "mae.pth")
    config = extract_features.from_args(extract_features.ExtractConfig, extract_features.get_parser().parse_args(
        ["--checkpoint", str(tmp_path / "mae.pth")]))
    net = extract_features.build_encoder(config)
    assert torch.equal(net.pos_embed, mae.encoder.pos_embed)
    assert torch.equal(net.blocks[1].mlp.fc1.weight, mae.encoder.blocks[1].mlp.fc1.weight)


@pytest.mark.parametrize(("arguments", "message"), [
    (["--nb_classes", "7"], "--nb_classes 7, but moving-shapes has 8 classes"),
    (["--data_set", "", "--nb_classes", "5"], r"train.csv cannot be used: line 6: .* there are 5 classes"),
    (["--data_set", ""], "give --data_set NAME, or --nb_classes"),
    (["--data_set", "UCF102"], "unknown data set 'UCF102'"),
    (["--data_path", "/nowhere"], "list of videos not found: /nowhere/train.csv"),
    (["--data_path", ""], "--data_path is missing"),
    (["--finetune", "/nowhere.pth"], "/nowhere.pth does not exist"),
    (["--model", "pretrain_tats_tiny"], "pretrain_tats_tiny is one for pre-training, and a classifier is wanted here: "
     "choose one of vit_(?!.*pretrain_)"),
    (["--model", "vit_gigantic"], "unknown model 'vit_gigantic'; choose one of vit_(?!.*pretrain_)"),
    (["--batch_size", "3"], "odd"),
    (["--batch_size", "48"], r"too few clips .* x 1 \(processes\); lower --batch_size"),
    (["--update_freq", "500"], r"too few clips .* x 500 \(--update_freq\) .*; lower --update_freq"),
    (["--aa", "autoaugment"], "--aa"),
    (["--crop_scale", "1", "0.5"], "--crop_scale"),
    (["--layer_decay", "1.5"], "--layer_decay"),
    (["--test_num_crop", "0"], "--test_num_crop"),
    (["--short_side_size", "16"], "--short_side_size 16"),
    (["--test_weights", "ema"], "--test_weights ema needs --model_ema"),
    (["--test_weights", "best", "--disable_eval_during_finetuning"], "--test_weights best needs validation"),
    (["--eval"], "nothing to evaluate"),
    (["--opt", "nothing"], "--opt nothing"),
    (["--zero_stage", "4"], "--zero_stage"),
    (["--enable_deepspeed", "--eval_mode", "linear"], "without --enable_deepspeed"),
    (["--enable_deepspeed", "--zero_stage", "3", "--model_ema"], "--model_ema needs whole weights"),
])
def test_bad_input_is_one_line(arguments, message, shapes, tmp_path, capsys):
    line = error_line(capsys, main, *flags(shapes, tmp_path / "out", *arguments))
    assert re.search(message, line), line


def test_a_checkpoint_of_another_network_is_refused(finished, shapes, tmp_path, capsys):
    out, _ = finished
    wide = create_model("vit_tats_tiny", embed_dim=48)
    torch.save({"model": wide.state_dict()}, tmp_path / "wide.pth")
    line = error_line(capsys, main, *flags(shapes, tmp_path, "--finetune", str(tmp_path / "wide.pth")))
    assert "another network" in line and "wide.pth" in line and "patch_embed.proj.weight" in line
    another = ("--tubelet_size", "4", "--finetune", str(out / "checkpoint-0.pth"))
    line = error_line(capsys, main, *flags(shapes, out, *another))
    assert "another network" in line
    line = error_line(capsys, main, *flags(shapes, out, "--drop_path", "0.3"))
    assert "cannot resume" in line


@pytest.mark.parametrize(("sampling", "how"), [
    ("dense", "at stride 2"), ("segments", "from as many parts of the video")])
def test_a_run_says_what_it_is(sampling, how, shapes, tmp_path, caplog):
    """Clips of 8 from 24 videos: 3 steps an epoch."""
    caplog.set_level("INFO")
    Finetuning(Settings.from_args(get_parser().parse_args(flags(
        shapes, tmp_path, "--test_num_segment", "4", "--sampling", sampling, "--sampling_rate", "2"))),
        runtime.start("cpu")).close()
    assert "vit_tats_tiny on 24 videos of 8 classes: 2 epochs of 3 steps; clips of 16 frames " \
        f"{how}, the test in 4 x 1 views" in caplog.text


def test_the_number_of_classes_is_named_where_classes_txt_has_it(tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("run\nsit\n\n")
    line = error_line(capsys, main, *flags(tmp_path, "", "--data_set", ""))
    assert line.endswith(f"for lists of your own: --nb_classes 2, as {tmp_path}/classes.txt names them")


def test_a_file_of_ours_names_the_model_that_it_wants(shapes, tmp_path, capsys):
    """Of --finetune and of --init_from; where the name is right and other sizes are not, nothing is said of it."""
    torch.save({"model": create_model("pretrain_tats_mini").state_dict(),
                "config": {"name": "pretrain_tats_mini", "kwargs": {}}}, tmp_path / "mini.pth")
    file = str(tmp_path / "mini.pth")
    line = error_line(capsys, main, *flags(shapes, tmp_path / "out", "--finetune", file))
    assert line.endswith("The file is of pretrain_tats_mini: give --model vit_tats_mini")
    line = error_line(capsys, pretrain_main, *small_pretraining_flags(shapes, tmp_path / "out"), "--init_from", file)
    assert line.startswith(f"error: --init_from {file}: ")
    assert line.endswith("The file is of pretrain_tats_mini: give --model pretrain_tats_mini")
    line = error_line(capsys, main, *flags(shapes, tmp_path / "out", "--finetune", file, "--model", "vit_tats_mini",
                                           "--tubelet_size", "4"))
    assert "another network" in line and "The file is of" not in line


def test_eval_needs_a_head(shapes, tmp_path, capsys):
    mae = create_model("pretrain_tats_tiny")
    torch.save({"model": mae.state_dict()}, tmp_path / "mae.pth")
    line = error_line(capsys, main, *flags(shapes, tmp_path, "--eval", "--finetune", str(tmp_path / "mae.pth")))
    assert "no fine-tuned classifier of 8 classes" in line


def test_videomaes_command_line_is_understood():
    args = get_parser().parse_args(
        "--model vit_base_patch16_224 --data_set UCF101 --nb_classes 101 --data_path lists --finetune p.pth "
        "--log_dir o --output_dir o --batch_size 16 --input_size 224 --short_side_size 224 --save_ckpt_freq 100 "
        "--num_frames 16 --sampling_rate 4 --num_sample 2 --opt adamw --lr 5e-4 --warmup_lr 1e-8 --min_lr 1e-5 "
        "--layer_decay 0.7 --opt_betas 0.9 0.999 --weight_decay 0.05 --epochs 100 --drop_path 0.2 --fc_drop_rate "
        "0.5 --use_checkpoint --test_num_segment 5 --test_num_crop 3 --dist_eval --enable_deepspeed --local-rank 0 "
        "--use_cls --no_pin_mem --no_save_ckpt --no_auto_resume --model_key model --crop_pct 0.9 --resplit "
        "--num_segments 1".split())
    assert args.dist_eval == "true" and args.opt_betas == [.9, .999] and args.layer_decay == .7
    assert not (args.pin_mem or args.save_ckpt or args.auto_resume) and args.use_cls and args.enable_deepspeed


def test_classes_that_are_tested_and_never_trained_are_told(tmp_path):
    """Labels 0 and 1 in training, 1 and 2 in the test: two of its three videos cannot be found."""
    lists = {}
    for split, labels in (("train", (0, 1, 1)), ("val", (0,)), ("test", (1, 2, 2))):
        (tmp_path / f"{split}.csv").write_text("".join(f"{place}.mp4 {label}\n" for place, label in enumerate(labels)))
        lists[split] = read_list(tmp_path / f"{split}.csv")
    assert unseen_classes(lists) == [f"2 of 3 videos of {tmp_path}/test.csv are of 1 class(es) without a training "
                                     "video, label 2 first: none of them can be found"]
    assert unseen_classes({"test": lists["test"]}) == []
