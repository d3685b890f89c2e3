"""User code that does not load."""

raise ValueError("this module is broken on purpose")
