"""How well a token map ranks motion."""
