"""A whole run: built from its settings, trained, saved and resumed."""
