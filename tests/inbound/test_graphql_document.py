"""GraphQL documents that would take long are refused before anything is executed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_agent.inbound.errors import InputError
from hpc_agent.inbound.graphql_document import check_cost, parse_document
from tests.relay.test_scope import STOCK

NESTED = "fragment F{n} on T {{ a: x {{ ...F{m} }} b: x {{ ...F{m} }} }} "


@pytest.mark.parametrize("name", sorted(STOCK))
def test_stock_documents_cost_little(name: str) -> None:
    """Each is far below the limits."""
    check_cost(parse_document(STOCK[name]))


@pytest.mark.parametrize(
    "document",
    [
        "query { " + " ".join(f"a{n}: runs {{ x }}" for n in range(5_000)) + " }",
        "query { " + " ".join(f"a{n}: x" for n in range(31)) + " }",
        "query { " + " ".join(f"f{n}" for n in range(501)) + " }",
        "query { " + "a { " * 40 + "b" + " }" * 41,
        "query { " + "a { " * 4_000 + "b" + " }" * 4_001,
        "query { ...F0 } "
        + "".join(NESTED.format(n=n, m=n + 1) for n in range(30))
        + "fragment F30 on T { x }",
        "query { x " + "# \n" * 100_000 + "}",
        "query { ",
        "\ud800",
        "",
    ],
    ids=lambda _: "",
)
def test_costly_documents_are_refused(document: str) -> None:
    """Aliases, fields, depth, fragments that multiply, length; and what is no document."""
    with pytest.raises(InputError):
        check_cost(parse_document(document))


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from('{}()[]$:!@.,#"\\ aAq1\n\u00b2'), max_size=60))
def test_any_text_is_a_document_or_refused(text: str) -> None:
    """With the documented error."""
    for document in (text, "query { a " + text + " }"):
        try:
            check_cost(parse_document(document))
        except InputError:
            continue
