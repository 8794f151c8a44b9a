"""Masking strategies on real labelled clips: `python -m tats.engines.compare_clips`."""
