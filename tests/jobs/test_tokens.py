"""Job tokens."""

from __future__ import annotations

from hpc_agent.jobs.tokens import JobTokens


def test_token_names_its_job() -> None:
    """The key comes back out of the token that was made for it."""
    tokens = JobTokens(b"secret")
    assert tokens.key(tokens.token("run-1")) == "run-1"


def test_token_of_another_job_or_agent_is_none_of_ours() -> None:
    """A token cannot be bent to another job, and not made without the secret."""
    tokens = JobTokens(b"secret")
    mac = tokens.token("run-1").partition(":")[2]
    assert tokens.key(f"run-2:{mac}") is None
    assert tokens.key(JobTokens(b"other").token("run-1")) is None
    assert tokens.key("") is None
    assert tokens.key("run-1") is None
