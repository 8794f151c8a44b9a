"""List files, the order of their rows, and the rows that cannot be read."""
