"""The options in the words of ``#SBATCH`` lines, by their long names.

Source: sbatch(1) of 22.05 to 26.05, and getopt_long(3), by which sbatch reads them. Abbreviated
names (``--part=``) are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

SHORT: Mapping[str, str] = {
    "A": "account",
    "a": "array",
    "b": "begin",
    "B": "extra-node-info",
    "C": "constraint",
    "c": "cpus-per-task",
    "d": "dependency",
    "D": "chdir",
    "e": "error",
    "F": "nodefile",
    "G": "gpus",
    "H": "hold",
    "i": "input",
    "J": "job-name",
    "k": "no-kill",
    "L": "licenses",
    "M": "clusters",
    "m": "distribution",
    "N": "nodes",
    "n": "ntasks",
    "O": "overcommit",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "Q": "quiet",
    "S": "core-spec",
    "s": "oversubscribe",
    "t": "time",
    "v": "verbose",
    "W": "wait",
    "w": "nodelist",
    "x": "exclude",
}
SWITCHES = frozenset(
    [
        "contiguous",
        "hold",
        "ignore-pbs",
        "no-requeue",
        "overcommit",
        "oversubscribe",
        "parsable",
        "quiet",
        "reboot",
        "requeue",
        "spread-job",
        "stepmgr",
        "test-only",
        "use-min-nodes",
        "verbose",
        "wait",
    ]
)
"""Options that take no value."""
OPTIONAL = frozenset(["exclusive", "get-user-env", "nice", "no-kill", "propagate", "resv-ports"])
"""Options whose value, if there is one, is in the same word (``--exclusive=user``)."""


def parse_options(words: Iterable[str]) -> dict[str, str]:
    """Return values by long name, ``""`` for an option without one; the last of two wins.

    Raises ValueError for a word that is no option, or an option without the value it needs.
    """
    found: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = value if equals or _stands_alone(name) else _next(rest, f"--{name}")
        elif word.startswith("-") and len(word) > 1:
            found |= _short(word[1:], rest)
        else:
            raise ValueError(f"{word!r} is no option of sbatch")
    return found


def _short(letters: str, rest: Iterable[str]) -> dict[str, str]:
    """Read ``-Hp gpu`` or ``-N2``: switches, and at the end an option with its value."""
    found = {}
    while letters:
        letter, letters = letters[0], letters[1:]
        name = SHORT.get(letter, letter)
        if name in SWITCHES:
            found[name] = ""
            continue
        found[name] = letters or ("" if name in OPTIONAL else _next(rest, f"-{letter}"))
        break
    return found


def _stands_alone(name: str) -> bool:
    return name in SWITCHES or name in OPTIONAL


def _next(words: Iterable[str], option: str) -> str:
    for word in words:
        return word
    raise ValueError(f"{option} needs a value")
