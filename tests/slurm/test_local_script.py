"""Reading #SBATCH lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_agent.slurm.local_script import expand, parse_script


def test_all_ways_to_give_an_option() -> None:
    """Long and short, with and without a sign between, quoted, with a comment behind."""
    script = parse_script(
        "#!/bin/bash -l\n"
        "# a comment\n\n"
        "#SBATCH --output='a b/%j.out' --error err.txt  # where it goes\n"
        "#SBATCH -t 1-00:00:00 -D/work\n"
        "#SBATCH --mem=4G -N 2 --signal=B:TERM@120\n"
        "##SBATCH --output=no\n"
        "echo\n"
        "#SBATCH --output=too-late\n"
    )
    assert script.interpreter == ("/bin/bash", "-l")
    assert (script.output, script.error) == ("a b/%j.out", "err.txt")
    assert script.time_limit_seconds == 86400
    assert script.working_directory == "/work"
    assert (script.warning_signal, script.warning_seconds) == ("TERM", 120)


def test_defaults() -> None:
    """As sbatch(1) has them."""
    script = parse_script("#!/bin/sh\n")
    assert (script.output, script.error, script.time_limit_seconds) == ("slurm-%j.out", None, None)


@pytest.mark.parametrize("text", ["", "\n", "echo hi\n", "#!/bin/sh\n#SBATCH --time=soon\n"])
def test_what_is_no_job_script(text: str) -> None:
    """Empty, without interpreter, or with a time nobody can read."""
    with pytest.raises(ValueError, match=r"empty|batch script|duration"):
        parse_script(text)


def test_file_name_patterns() -> None:
    """Replaced once, zero-padded, and never leading out of the directory."""
    assert _expand("%x-%j.%N.%u%%", name="n") == Path("/w/n-local-7.c1.ann%")
    assert _expand("%x", name="../../%j") == Path("/w/.._.._%j")
    assert _expand("/tmp/%8u", name="n") == Path("/tmp/00000ann")


def _expand(pattern: str, *, name: str) -> Path:
    return expand(pattern, job_id="local-7", name=name, host="c1", user="ann", directory=Path("/w"))
