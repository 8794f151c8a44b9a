"""Cores that may be used, and work on many videos spread over them."""
