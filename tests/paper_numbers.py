"""The paper's tables, typed from it: percent, (VideoMAE top-1, top-5, AdaMAE top-1, top-5, TATS top-1, top-5)."""

TABLE_1 = {
    ("ucf101", "0.85"): (80.36, 94.95, 83.98, 96.37, 85.94, 96.98),
    ("ucf101", "0.90"): (76.64, 94.29, 82.42, 95.84, 84.53, 96.37),
    ("ucf101", "0.95"): (65.86, 89.14, 80.83, 95.26, 81.75, 95.29),
    ("hmdb51", "0.85"): (40.82, 71.61, 41.28, 73.37, 41.60, 73.31),
    ("hmdb51", "0.90"): (36.39, 69.73, 39.13, 72.33, 41.28, 73.76),
    ("hmdb51", "0.95"): (33.98, 65.36, 37.70, 70.38, 38.67, 72.01),
    ("k400", "0.85"): (42.26, 68.28, 38.97, 64.68, 43.24, 68.76),
    ("k400", "0.90"): (41.79, 68.62, 39.50, 65.70, 43.28, 68.85),
    ("k400", "0.95"): (39.73, 66.15, 39.42, 65.14, 41.70, 67.29),
    ("ssv2", "0.85"): (37.63, 66.47, 37.92, 66.63, 39.96, 68.10),
    ("ssv2", "0.90"): (37.85, 66.86, 38.10, 66.29, 40.79, 69.30),
    ("ssv2", "0.95"): (37.24, 65.92, 38.38, 67.11, 40.25, 68.73),
}

TABLE_2 = {
    ("k400", "ucf101", "0.85"): (84.91, 96.51, 85.49, 96.93, 86.94, 97.67),
    ("k400", "ucf101", "0.90"): (84.41, 96.25, 84.98, 96.48, 86.23, 97.27),
    ("k400", "ucf101", "0.95"): (82.40, 95.80, 84.03, 96.50, 85.17, 96.77),
    ("k400", "hmdb51", "0.85"): (55.60, 82.55, 55.79, 84.44, 60.81, 84.44),
    ("k400", "hmdb51", "0.90"): (56.71, 83.07, 56.45, 82.49, 60.42, 83.59),
    ("k400", "hmdb51", "0.95"): (53.26, 79.75, 54.10, 81.25, 58.14, 82.62),
    ("k400", "ssv2", "0.85"): (36.42, 65.50, 36.72, 65.72, 38.39, 66.47),
    ("k400", "ssv2", "0.90"): (35.70, 64.46, 36.62, 65.27, 39.46, 67.25),
    ("k400", "ssv2", "0.95"): (34.11, 62.64, 36.88, 65.64, 38.13, 66.48),
    ("ssv2", "ucf101", "0.85"): (84.88, 96.91, 84.98, 96.72, 87.16, 97.38),
    ("ssv2", "ucf101", "0.90"): (83.88, 96.75, 84.64, 97.06, 86.81, 97.51),
    ("ssv2", "ucf101", "0.95"): (82.53, 95.90, 84.38, 96.21, 85.14, 97.11),
    ("ssv2", "hmdb51", "0.85"): (54.82, 82.03, 55.47, 82.81, 59.64, 84.83),
    ("ssv2", "hmdb51", "0.90"): (55.92, 83.40, 55.86, 84.31, 60.35, 85.42),
    ("ssv2", "hmdb51", "0.95"): (52.41, 80.14, 54.69, 84.18, 58.40, 83.59),
}

TABLE_9 = (59.38, 84.17, 63.06, 85.89, 65.82, 88.50)

# case: top-1, top-5, memory in GB
TABLE_3 = {
    "3a": {"mha": (81.59, 95.29, 25.37), "ta": (81.75, 95.42, 25.36)},
    "3b": {"1": (81.46, 95.07, 16.54), "2": (80.83, 95.02, 19.48), "4": (81.75, 95.29, 25.36),
           "8": (79.10, 94.68, 37.13)},
    "3d": {"l1_norm": (81.51, 95.58, None), "l1_raw": (81.41, 95.02, None), "mse_norm": (81.75, 95.29, None),
           "mse_raw": (81.61, 95.14, None)},
    "3e": {"1": (81.75, 95.29, 25.36), "2": (65.17, 88.59, 32.18), "3": (67.35, 90.20, 39.00)},
}
TABLE_3C = {"videomae": (20.94, 65.86), "adamae": (26.17, 80.83), "tats": (25.36, 81.75)}   # memory, top-1

# (m_o, k) -> reconstruction error on UCF101, HMDB51
TABLE_5 = {
    "0,1": (.5211, .8051), "1,1": (.5205, .8195), "5,1": (.5304, .8535), "10,1": (.5135, .8278), "25,1": (.5269, .8987),
    "100,1": (.6662, .9291), "50,5": (.7735, .9772), "50,10": (.8149, .9776), "50,25": (.9201, None),
}

# (c1, c2, c3) -> reconstruction errors; one case is printed twice
TABLE_6 = {
    "1e-4,1e-3,1e-3": (.5188,), "1e-4,1e-3,1e-4": (.5167,), "1e-4,1e-4,1e-3": (.5246,), "1e-3,1e-4,1e-4": (.8482,),
    "1e-4,1e-4,1e-4": (.5135,), "1e-5,1e-4,1e-4": (.5239,), "1e-3,1e-3,1e-4": (.5215, .7869),
    "1e-5,1e-5,1e-5": (.5173,),
}

# name in --data_set, classes, stride between frames, temporal clips of the test (Sec. 7 and 8.1, Table 7)
DATA_SETS = {
    "ucf101": ("UCF101", 101, 2, 2),
    "hmdb51": ("HMDB51", 51, 2, 2),
    "k400": ("Kinetics-400", 400, 4, 5),
    "ssv2": ("SSV2", 174, 2, 2),
    "ssv2full": ("SSV2", 174, 2, 2),
}

# What the projects' own scripts and the defaults of their programs say (VideoMAE 14ef8d8, AdaMAE aa19850), for ViT-B;
# of the programs' defaults: --min_lr, --weight_decay, --warmup_epochs of fine-tuning, the augmentation, the rate of
# pre-training where no script gives one. Epochs and mask ratio are the paper's.
_PRETRAINING = {"model": "pretrain_videomae_base_patch16_224", "decoder_depth": 4, "num_frames": 16, "opt": "adamw",
                "opt_betas": [.9, .95], "weight_decay": .05, "warmup_epochs": 40, "min_lr": 1e-5, "input_size": 224,
                "pretrain_aug": "multiscale", "loss": "mse", "normlize_target": True, "clip_grad": None,
                "batch_size": 32, "lr": 1.5e-4}
_FINETUNING = {"model": "vit_base_patch16_224", "opt": "adamw", "opt_betas": [.9, .999], "weight_decay": .05,
               "warmup_epochs": 5, "min_lr": 1e-6, "layer_decay": .75, "drop_path": .1, "fc_drop_rate": 0,
               "aa": "rand-m7-n4-mstd0.5-inc1", "smoothing": .1, "reprob": .25, "mixup": .8, "cutmix": 1,
               "num_sample": 1, "batch_size": 8, "lr": 1e-3, "test_num_crop": 3}
# scripts/ucf101/..._ratio_0.75_epoch_3200/{pretrain,finetune}.sh of VideoMAE; there is none for HMDB51
_VIDEOMAE_UCF101 = (_PRETRAINING | {"batch_size": 24, "lr": 3e-4, "sampling_rate": 4},
                    _FINETUNING | {"batch_size": 16, "num_sample": 2, "lr": 5e-4, "min_lr": 1e-5, "layer_decay": .7,
                                   "drop_path": .2, "fc_drop_rate": .5, "sampling_rate": 4, "test_num_segment": 5})
# scripts/kinetics/..._ratio_0.9_epoch_800 of VideoMAE; AdaMAE's for Kinetics-400, which UCF101 and HMDB51 take, too
_KINETICS = (_PRETRAINING | {"sampling_rate": 4}, _FINETUNING | {"sampling_rate": 4, "test_num_segment": 5})
# scripts/ssv2/..._ratio_0.9_epoch_800 of VideoMAE, AdaMAE's for SSv2
_SSV2 = (_PRETRAINING | {"sampling_rate": 2}, _FINETUNING | {"lr": 5e-4, "test_num_segment": 2})
PUBLISHED = {
    "videomae": {"ucf101": _VIDEOMAE_UCF101, "hmdb51": _VIDEOMAE_UCF101, "k400": _KINETICS, "ssv2": _SSV2},
    "adamae": {"ucf101": _KINETICS, "hmdb51": _KINETICS, "k400": _KINETICS, "ssv2": _SSV2},
}
