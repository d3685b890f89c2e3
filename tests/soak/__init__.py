"""Connections by the thousand, and what three processes take for them."""
