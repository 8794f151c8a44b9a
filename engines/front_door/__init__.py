"""Masked video pre-training with a learned choice of tokens (TATS). `python -m tats` lists the programs.

This folder is installed as the package `tats` itself, above `tats.models`, `tats.masking`, `tats.datasets` and
`tats.engines`: the top of a checkout cannot be that package, since it also holds setup.py and the tests.
"""
