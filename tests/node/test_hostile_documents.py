"""What stands in a job directory is read, or refused in the node program's own words."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from hpc_agent.node.relay_address import RelayAddress, RelayUnreachable, dial, read_address
from hpc_agent.node.reports import Answer, ReportFailed, _parse
from hpc_agent.node.spec import SOCKET, TMP, Spec, SpecError, read_spec, with_paths
from hpc_agent.relay.certificate import load_or_create

DEEP = "[" * 100_000
with tempfile.TemporaryDirectory() as made:
    PEM = load_or_create(Path(made), ["localhost"]).pem
TEXT = st.text(max_size=10) | st.sampled_from(["{tmp}", "{socket}", "\0", "\ud800", "a" * 70])
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, 1e308, 65536])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
WORDS = st.lists(TEXT | st.fixed_dictionaries({"path": st.sampled_from([SOCKET, TMP]) | VALUES}))
SPECS = st.fixed_dictionaries(
    {"version": st.just(2) | VALUES, "kind": st.sampled_from(["run_worker", "pack"]) | VALUES},
    optional={
        "key": VALUES,
        "argv": WORDS | VALUES,
        "resume_argv": WORDS | VALUES,
        "environment": st.dictionaries(TEXT, TEXT, max_size=3) | VALUES,
        "grace_seconds": NUMBERS | VALUES,
        "parked_connections": NUMBERS | VALUES,
        "memory_limit_mb": VALUES,
        "nice": NUMBERS | VALUES,
    },
)
ADDRESSES = st.fixed_dictionaries(
    {"version": st.just(1) | VALUES},
    optional={
        "addresses": st.lists(
            st.builds("127.0.0.1:{}".format, NUMBERS | TEXT) | st.builds("{}:1".format, TEXT)
        )
        | VALUES,
        "certificate": st.just(PEM) | VALUES,
    },
)


def documents(shaped: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return st.one_of(shaped.map(json.dumps), VALUES.map(json.dumps), TEXT, st.just(DEEP))


def written(directory: str, name: str, text: str) -> str:
    path = Path(directory) / name
    path.write_text(text, errors="surrogatepass")
    return str(path)


def a_spec(**changed: object) -> str:
    """Return a specification that is right but for this."""
    right = {"version": 2, "key": "k", "kind": "run_worker", "argv": ["true"]}
    return json.dumps(right | changed)


@settings(max_examples=300, deadline=None)
@given(documents(SPECS))
@example(a_spec())
@example(a_spec(argv=["{tmp}", {"path": "tmp"}, {"path": "socket"}]))
@example(a_spec(argv=[{"path": "/etc"}]))
@example(a_spec(argv=[{"path": ["tmp"]}]))
@example(a_spec(argv=[{}]))
@example(a_spec(grace_seconds=10**400))
@example(a_spec(parked_connections=float("inf")))
def test_any_specification_is_read_or_refused(text: str) -> None:
    """And paths go where a word says so in its form, never in its text."""
    with tempfile.TemporaryDirectory() as directory:
        written(directory, "spec.json", text)
        try:
            spec = read_spec(directory)
        except SpecError:
            return
    assert isinstance(spec, Spec)
    words = with_paths(spec.argv, {SOCKET: "/s", TMP: "/t"})
    given_words = json.loads(text)["argv"]
    for given_word, word in zip(given_words, words, strict=True):
        assert word == (
            {SOCKET: "/s", TMP: "/t"}[given_word["path"]]
            if isinstance(given_word, dict)
            else str(given_word)
        )


def leading_to(*addresses: str, certificate: str = PEM) -> str:
    return json.dumps({"version": 1, "addresses": addresses, "certificate": certificate})


@settings(max_examples=300, deadline=None)
@given(documents(ADDRESSES))
@example(leading_to("127.0.0.1:1"))
@example(leading_to("127.0.0.1:65536"))
@example(leading_to(f"127.0.0.1:{10**30}"))
@example(leading_to("127.0.0.1:-1"))
@example(leading_to("a" * 70 + ":1"))
@example(leading_to("a\0b:1"))
@example(leading_to("\ud800:1"))
@example(leading_to("127.0.0.1:1", certificate="\u20ac"))
def test_any_address_of_the_relay_is_read_or_refused(text: str) -> None:
    """Nothing listens anywhere: dialling ends as if the relay were away."""
    with tempfile.TemporaryDirectory() as directory:
        path = written(directory, "relay.json", text)
        try:
            assert isinstance(read_address(path), RelayAddress)
            dial(path, "http/1.1")
        except RelayUnreachable:
            return
    raise AssertionError("a relay was reached")


@settings(max_examples=200, deadline=None)
@given(documents(VALUES))
def test_any_answer_to_a_report_is_read_or_refused(text: str) -> None:
    """As of something between the node and the agent."""
    with contextlib.suppress(ReportFailed):
        assert isinstance(_parse(text.encode("utf-8", "surrogatepass")), Answer)
