"""Reading videos: lists, decoding, clips, synthetic data."""
