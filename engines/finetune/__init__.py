"""What fine-tuning adds: mixing of clips, evaluation of views, frozen features."""
