"""Speed and memory: `python -m tats.engines.benchmark`."""
