"""From decoded frames to clips of the right size."""
