"""The loops and the programs."""
