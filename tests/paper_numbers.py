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

TABLE_4 = {   # pre-training, all methods
    "model": "pretrain_videomae_base_patch16_224",   # "ViT-Base", Sec. 4
    "num_frames": 16, "input_size": 224,             # "16 x 3 x 224 x 224", Sec. 4
    "tubelet_size": 2,                               # "tubelet length = 2", Sec. 4
    "decoder_depth": 4,                              # Table 8, grey in Table 3b; the text of Sec. 4.2 says 1
    "loss": "mse", "normlize_target": True,          # grey in Table 3d; Eq. 6
    "pretrain_aug": "multiscale",                    # Table 4, augmentation
    "opt": "adamw",                                  # Table 4, optimizer
    "opt_betas": [.9, .95],                          # Table 4, optimizer betas
    "batch_size": 32,                                # Table 4; "32 on 8 GPUs", Sec. 4
    "lr": 1.5e-4,                                    # Table 4, base learning rate
    "warmup_epochs": 40,                             # Table 4
    "epochs": 400,                                   # Sec. 4, 1.
    "weight_decay": .05, "min_lr": 1e-5,             # not in the paper: defaults of VideoMAE's run_mae_pretraining.py
    "clip_grad": None, "drop_path": 0,               # likewise
    "save_ckpt_freq": 50, "save_every_minutes": 30,  # ours, nothing that is computed
}
SAMPLER = {   # of TATS_RECIPE=paper
    "tats_recipe": "paper",
    "tats_approx": "orthoformer",       # "In practice, we employ an approximation of TA (Orthoformer)", Sec. 3.2
    "num_landmarks": 128,               # not in the paper; Motionformer's configuration
    "tats_project_values": True,        # v~ = W~ y~, Eq. 2
    "ppo_ratio": "resampled",           # I_m' of Eq. 8 and of line 18
    "ppo_weighting": "uniform",         # the plain mean: nothing else is printed
    "adv_norm": "none",                 # A = L_R - psi, Sec. 3.3
    "policy_coef": 1e-4,                # Table 4, c1
    "value_coef": 1e-4,                 # Table 4, c2
    "entropy_coef": 1e-4,               # Table 4, c3
    "sampler_lr": 1.5e-6,               # Table 4, learning rate for g_theta
    "sampler_lr_final": None, "sampler_warmup_epochs": 0,   # Table 4 does not say that its schedule is theta's
    "mae_only_epochs": 10,              # Table 4, m_o
    "update_every": 1,                  # Table 4, k
    "clip_epsilon": .2,                 # "epsilon = 0.2", Sec. 3.3
    "softmax_temp": 1,                  # Table 4
    "tats_depth": 1,                    # grey in Table 3e
    "tats_attention": "trajectory",     # grey in Table 3a
    "flush_buffer": True, "reward": "token", "policy_head_init": "zeros",   # not said, see docs/reproducing.md
    "mae_only_explained": 0, "random_share": 0, "context_share": 0, "ppo_epochs": 1, "target_kl": None,   # ours, off
    "target_entropy": None, "tats_merge": None, "tats_block": None, "reward_reach": 0,
}
TABLE_7 = {   # fine-tuning, all methods
    "model": "vit_base_patch16_224",                 # "ViT-Base", Sec. 4
    "num_frames": 16, "input_size": 224, "short_side_size": 224,   # Sec. 4
    "opt": "adamw",                                  # Table 7, optimizer
    "opt_betas": [.9, .999],                         # Table 7, optimizer betas
    "batch_size": 8,                                 # Table 7
    "weight_decay": .05,                             # Table 7
    "lr": 1e-3,                                      # Table 7, base learning rate
    "layer_decay": .75,                              # Table 7
    "warmup_epochs": 5,                              # Table 7
    "aa": "rand-m9-mstd0.5-inc1",                    # Table 7, "RandAug 9, 0.5"; timm's two operations
    "smoothing": .1,                                 # Table 7, label smoothing
    "mixup": .8,                                     # Table 7
    "drop_path": .1,                                 # Table 7, DropPath
    "test_num_crop": 3,                              # Table 7, # spatial crops
    "epochs": 100,                                   # "over 100 epochs", Sec. 4
    "cutmix": 1, "reprob": .25, "min_lr": 1e-6,      # not in the paper: defaults of VideoMAE's run_class_finetuning.py
    "fc_drop_rate": 0, "clip_grad": None,            # likewise
    "num_sample": 1,                                 # not in the paper: AdaMAE's scripts, whose batch of 8 it is
    "save_ckpt_freq": 25, "save_every_minutes": 30,  # ours, nothing that is computed
    "enable_deepspeed": True, "zero_stage": 1,       # ours: how it runs on GPUs
}

# What the projects' own scripts and the defaults of their programs say (VideoMAE 14ef8d8, AdaMAE aa19850), for ViT-B.
# "default": of run_mae_pretraining.py, pretrain_mae_vit.py; of run_class_finetuning.py, finetune_class.py. The 64 GPUs
# of the scripts for Kinetics-400 and SSv2 are 8 here. Epochs and mask ratio are the paper's.
_PRETRAINING = {
    "model": "pretrain_videomae_base_patch16_224", "decoder_depth": 4, "num_frames": 16,   # every script
    "opt": "adamw", "opt_betas": [.9, .95], "warmup_epochs": 40,                            # every script
    "batch_size": 32,                                                                       # scripts but UCF101's
    "lr": 1.5e-4,                                                                           # default, but UCF101's
    "weight_decay": .05, "min_lr": 1e-5, "input_size": 224, "clip_grad": None,              # default
    "normlize_target": True,                                                                # default
    "loss": "mse",                                                                          # engine_for_pretraining.py
    "pretrain_aug": "multiscale",                             # DataAugmentationForVideoMAE of datasets.py, both
}
_FINETUNING = {
    "model": "vit_base_patch16_224", "opt": "adamw", "opt_betas": [.9, .999], "weight_decay": .05,   # every script
    "test_num_crop": 3,                                                                             # every script
    "batch_size": 8, "num_sample": 1,                                                      # scripts but UCF101's
    "lr": 1e-3,                                                                            # Kinetics-400's script
    "layer_decay": .75, "drop_path": .1, "min_lr": 1e-6,                                   # default, but UCF101's
    "fc_drop_rate": 0,                                        # default, but UCF101's; AdaMAE has no such flag
    "warmup_epochs": 5, "aa": "rand-m7-n4-mstd0.5-inc1", "smoothing": .1,                  # default
    "reprob": .25, "mixup": .8, "cutmix": 1,                                               # default
}
# VideoMAE's scripts/ucf101/videomae_vit_base_patch16_224_tubemasking_ratio_0.75_epoch_3200; there is none for HMDB51
_VIDEOMAE_UCF101 = (
    _PRETRAINING | {"batch_size": 24, "lr": 3e-4, "sampling_rate": 4},                     # pretrain.sh
    _FINETUNING | {"batch_size": 16, "num_sample": 2, "lr": 5e-4, "min_lr": 1e-5, "layer_decay": .7, "drop_path": .2,
                   "fc_drop_rate": .5, "sampling_rate": 4, "test_num_segment": 5})         # finetune.sh
# VideoMAE's scripts/kinetics/videomae_vit_base_patch16_224_tubemasking_ratio_0.9_epoch_800. AdaMAE's pre-training is in
# scripts/kinetics/..._learnablemasking_ratio_0.95_epoch_800, its fine-tuning, changed about, in scripts/ssv2/...;
# UCF101 and HMDB51 take them, too
_KINETICS = (_PRETRAINING | {"sampling_rate": 4},                                          # --sampling_rate 4
             _FINETUNING | {"sampling_rate": 4, "test_num_segment": 5})                    # --test_num_segment 5
# VideoMAE's scripts/ssv2/videomae_vit_base_patch16_224_tubemasking_ratio_0.9_epoch_800; AdaMAE's likewise
_SSV2 = (_PRETRAINING | {"sampling_rate": 2},                                              # --sampling_rate 2
         _FINETUNING | {"lr": 5e-4, "test_num_segment": 2})                                # --lr 5e-4
PUBLISHED = {
    "videomae": {"ucf101": _VIDEOMAE_UCF101, "hmdb51": _VIDEOMAE_UCF101, "k400": _KINETICS, "ssv2": _SSV2},
    "adamae": {"ucf101": _KINETICS, "hmdb51": _KINETICS, "k400": _KINETICS, "ssv2": _SSV2},
}
