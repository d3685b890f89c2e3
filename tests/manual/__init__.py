"""The manual: what pages say exists, and what exists has its page."""
