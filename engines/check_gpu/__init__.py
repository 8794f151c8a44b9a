"""Eleven steps that say what a GPU does with this package: `python -m tats.engines.check_gpu`."""
