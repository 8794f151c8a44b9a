"""The flags: declared once as dataclasses, read back from the command line."""
