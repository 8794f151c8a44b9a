"""Weights of other projects into our networks, and back."""
