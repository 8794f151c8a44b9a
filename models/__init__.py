"""Networks: tensors in, tensors out."""

from .convert.checkpoints import LoadReport, find_weights, load_encoder, load_pretraining, read_checkpoint
from .landmarks import select_landmarks
from .mae import PretrainVisionTransformer
from .positions import sincos3d_table, sincos_table
from .registry import create_model, model_names
from .targets import reconstruction_targets
from .trajectory_attention import TrajectoryAttention, use_kernel
from .vit import VisionTransformer

__all__ = [
    "LoadReport", "PretrainVisionTransformer", "TrajectoryAttention", "VisionTransformer", "create_model",
    "find_weights", "load_encoder", "load_pretraining", "model_names", "read_checkpoint", "reconstruction_targets",
    "select_landmarks", "sincos3d_table", "sincos_table", "use_kernel",
]
