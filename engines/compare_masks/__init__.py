"""Masking strategies on moving shapes: `python -m tats.engines.compare_masks`."""
