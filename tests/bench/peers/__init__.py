"""This product beside everything that a user would pick instead: ``--part peers``."""
