"""Networks: tensors in, tensors out."""

from .landmarks import select_landmarks
from .mae import PretrainVisionTransformer
from .positions import sincos3d_table, sincos_table
from .registry import create_model, model_names
from .targets import reconstruction_targets
from .trajectory_attention import TrajectoryAttention
from .vit import VisionTransformer

__all__ = [
    "PretrainVisionTransformer", "TrajectoryAttention", "VisionTransformer", "create_model", "model_names",
    "reconstruction_targets", "select_landmarks", "sincos3d_table", "sincos_table",
]
