"""The options as people read them."""

from __future__ import annotations

from pathlib import Path

from hpc_agent.jobs import options_page

PAGE = Path(__file__).parent.parent.parent / "docs" / "options.md"


def test_tables_in_the_documentation_are_up_to_date() -> None:
    """`hpc-agent options list --markdown` prints what stands between the marks."""
    _, _, rest = PAGE.read_text().partition("<!-- hpc-agent options list --markdown -->\n")
    assert rest.partition("\n<!-- end -->")[0] == options_page.markdown()
