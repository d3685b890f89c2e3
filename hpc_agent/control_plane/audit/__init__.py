"""Who did what to this control plane, when, and with which outcome: ``audit.log`` in its home."""
