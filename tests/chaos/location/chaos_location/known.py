"""What a run prints and logs: known beforehand, so that every byte can be compared."""

LOG_LINES = 5
"""Numbered messages that the op writes to the run's event log."""

_LINES = 60


def stdout(run_id: str) -> str:
    """Return all that the op of this run prints to its standard output."""
    return first_half(run_id) + second_half(run_id)


def first_half(run_id: str) -> str:
    """Return what is printed before the op sleeps."""
    return "".join(_line(run_id, number) for number in range(_LINES // 2))


def second_half(run_id: str) -> str:
    """Return what is printed after the op has slept."""
    return "".join(_line(run_id, number) for number in range(_LINES // 2, _LINES))


def log_message(run_id: str, number: int) -> str:
    """Return the op's message of this number."""
    return f"chaos {run_id[:8]} message {number} of {LOG_LINES}"


def _line(run_id: str, number: int) -> str:
    """Lines of different lengths with text of more than one byte a character."""
    return f"{run_id} {number:04d} größer ✓ {'·' * (number % 7)}{'x' * (number % 29)}\n"
