"""Every reason code of Slurm has words."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpc_agent.jobs.reasons import in_words

# All codes that Slurm 22.05.8 can print, as its library (libslurmfull.so) holds them.
CODES = (Path(__file__).parents[1] / "recorded" / "22.05" / "reasons.txt").read_text().split()


@pytest.mark.parametrize("code", CODES)
def test_every_code_of_slurm_has_words(code: str) -> None:
    """No user has to look one up."""
    assert in_words(code)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (
            "QOSMaxJobsPerUserLimit",
            "the limit of running jobs of one user in the QOS is reached",
        ),
        (
            "AssocGrpCPURunMinutesLimit",
            "the limit of CPU minutes of running jobs of all jobs of the account together is "
            "reached",
        ),
        (
            "QOSMaxGRESPerJob",
            "it asks for more than the most GRES (GPUs) of one job in the QOS; ask for less",
        ),
        ("QOSMinGRES", "it asks for less than the least GRES (GPUs) of the QOS; ask for more"),
        (
            "MaxGRESPerAccount",
            "the limit of GRES (GPUs) in one account in the QOS is reached",
        ),
        (
            "ReqNodeNotAvail, UnavailableNodes:c2",
            "a node it asks for is not available (UnavailableNodes:c2)",
        ),
        ("Reservation", "it waits for its reservation"),
    ],
)
def test_words_say_whose_limit_of_what(reason: str, words: str) -> None:
    """Limits are put together from the parts of their codes."""
    assert in_words(reason) == words


@pytest.mark.parametrize("reason", ["", "None", "SomethingNew", "QOSMaxFluxPerUser"])
def test_unknown_code_has_no_words(reason: str) -> None:
    """It is told as Slurm says it."""
    assert in_words(reason) is None
