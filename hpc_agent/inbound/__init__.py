"""What peers send, understood within limits: sizes, depth and names are checked before use."""
