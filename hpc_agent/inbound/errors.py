"""Why something that a peer has sent is not taken."""

from __future__ import annotations


class InputError(ValueError):
    """It cannot be understood, or is not what it must be; the message is for the peer."""


class InputTooLargeError(InputError):
    """It is larger than what is taken, as it is or once it is unpacked."""
