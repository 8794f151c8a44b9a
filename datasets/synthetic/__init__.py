"""Videos whose motion is known."""
