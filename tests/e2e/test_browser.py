"""What a person does in the web UI, in a real browser, with jobs of a real Slurm behind it.

With HPC_AGENT_SCREENSHOTS=DIRECTORY the tests take the pictures of docs/tour.md on their way.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from hpc_agent.demo.stack import EXAMPLE, Stack, example_location
from tests.browser import log_in, needs_browser, running_browser
from tests.cluster import SlurmCluster
from tests.e2e.conftest import choice_of, running_stack

pytestmark = [pytest.mark.slurm, pytest.mark.e2e, pytest.mark.timeout(300), needs_browser]

FAR_AWAY = {"dagster-hpc/begin": "now+1hour"}
IN_PROCESS: dict[str, Any] = {"execution": {"config": {"in_process": {}}}}
BROKEN = {
    "code_source": {"module_name": "broken_location.definitions"},
    "working_directory": str(EXAMPLE),
}

# No picture says where this repository lies.
ELSEWHERE = """
root => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode())
    texts.currentNode.nodeValue = texts.currentNode.nodeValue.replaceAll(root, "/shared/hpc-agent");
}
"""


@pytest.fixture(scope="module")
def stack(slurm_cluster: SlurmCluster) -> Iterator[Stack]:
    """A stack with a location that loads, one that does not, and one that waits for its job."""
    settings = {
        "scheduler": {"poll_seconds": 2, "commands_per_second": 20},
        "relay": {"bind": "127.0.0.1"},
        "code_servers": {"options": {"time": "00:30:00"}},
        "locations": {"waiting": {"code_server_options": {"begin": "now+1hour"}}},
    }
    with running_stack(choice_of(slurm_cluster), **settings) as started:
        example = example_location()
        started.deploy({"example": example, "broken": BROKEN, "waiting": example})
        yield started


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    """A browser that somebody has logged in with, by way of the page that they wanted."""
    with running_browser() as started:
        started.goto(f"{stack.webserver.url}/locations")
        log_in(started, stack.webserver.token)
        yield started


@pytest.fixture(scope="module", autouse=True)
def backfill(page: Page, stack: Stack) -> str:
    """The id of a backfill of two days: started first, since the daemon takes its time."""
    page.goto(f"{stack.webserver.url}/assets/daily_extremes")
    page.get_by_role("button", name="Materialize").first.click()
    third, second = (datetime.now(UTC).date() - timedelta(days=ago) for ago in (3, 2))
    page.get_by_placeholder("No matching partitions").fill(f"[{third}...{second}]")
    page.keyboard.press("Enter")
    expect(page.get_by_text("2 partitions", exact=True)).to_be_visible()
    take_picture(page, "backfill")
    page.get_by_role("button", name="Launch backfill").click()
    toast = page.get_by_text("Created backfill")
    expect(toast).to_be_visible()
    return (toast.text_content() or "").split()[-1]


def take_picture(page: Page, name: str) -> None:
    """Write what is on the page into the directory of pictures, when there is one."""
    directory = os.environ.get("HPC_AGENT_SCREENSHOTS")
    if directory:
        page.evaluate(ELSEWHERE, str(EXAMPLE.parents[2]))
        picture = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
        # 256 colours do for it, at a third of the size.
        picture.convert("RGB").quantize(256).save(Path(directory) / f"{name}.png", optimize=True)


def open_run(page: Page, stack: Stack, run_id: str) -> None:
    page.goto(f"{stack.webserver.url}/runs/{run_id}")


def read_stdout(page: Page) -> None:
    """Go from a run's log to what its process prints, as soon as there is a process."""
    page.get_by_text("View stdout / stderr").click()
    page.get_by_role("button", name="stdout").click()


def nap(stack: Stack, **tags: str) -> str:
    """Launch a run that sleeps for longer than anybody waits."""
    config = {**IN_PROCESS, "ops": {"sleep_and_tell": {"config": {"seconds": 600}}}}
    return stack.webserver.launch("example", "sleepy_job", config=config, tags=tags)


def test_locations_are_shown_with_what_keeps_them(page: Page, stack: Stack) -> None:
    """One is loaded, of one Python's own error is shown, of one what Slurm says of its job."""
    page.goto(f"{stack.webserver.url}/locations")
    expect(page.get_by_text("Loaded", exact=True)).to_have_count(1)
    expect(page.get_by_text("Failed", exact=True)).to_have_count(2)
    take_picture(page, "locations")
    errors = page.get_by_text("View error")
    for number, words in enumerate(("no module named 'climate_model'", "PENDING (BeginTime")):
        errors.nth(number).click()
        expect(page.get_by_text(words).first).to_be_visible()
        take_picture(page, ("location-broken", "location-waiting")[number])
        page.get_by_role("button", name="Close").click()


def test_asset_is_materialized_and_its_output_read(page: Page, stack: Stack) -> None:
    """The run's log goes on by itself, from the job's submission to its end."""
    page.goto(f"{stack.webserver.url}/assets/raw_readings")
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_text("View", exact=True).click()
    for words in ("Run worker submitted as Slurm job", "ASSET_MATERIALIZATION", "RUN_SUCCESS"):
        expect(page.get_by_text(words).last).to_be_attached()
    take_picture(page, "run")
    read_stdout(page)
    expect(page.get_by_text("hours from")).not_to_have_count(0)
    take_picture(page, "stdout")


def test_metadata_of_an_asset_is_plotted(page: Page, stack: Stack) -> None:
    run_id = stack.webserver.launch("example", "__ASSET_JOB", assets=["raw_readings"])
    assert stack.wait_finished(run_id) == "SUCCESS"
    page.goto(f"{stack.webserver.url}/assets/raw_readings")
    page.get_by_role("button", name="Plots").click()
    plot = page.locator("canvas").first
    plot.scroll_into_view_if_needed()
    expect(plot).to_be_visible()
    take_picture(page, "plots")


def test_run_that_waits_in_the_queue_is_cancelled(page: Page, stack: Stack) -> None:
    """Its log says what it waits for; the job is gone before it has started."""
    run_id = nap(stack, **FAR_AWAY)
    open_run(page, stack, run_id)
    expect(page.get_by_text("is PENDING (BeginTime")).to_be_visible()
    take_picture(page, "pending")
    page.get_by_role("button", name="Terminate").click()
    page.get_by_role("button", name="Force termination").click()
    assert stack.wait_finished(run_id) == "CANCELED"
    open_run(page, stack, run_id)
    expect(page.get_by_text("Canceled").first).to_be_visible()


def test_run_that_runs_is_watched_and_cancelled(page: Page, stack: Stack) -> None:
    """What it prints comes while it prints."""
    run_id = nap(stack)
    open_run(page, stack, run_id)
    read_stdout(page)
    for words in ("slept 1 of 600 s", "slept 5 of 600 s"):
        expect(page.get_by_text(words)).to_be_attached()
    page.get_by_role("button", name="Terminate").click()
    page.get_by_role("dialog").get_by_role("button", name="Terminate").click()
    assert stack.wait_finished(run_id) == "CANCELED"
    open_run(page, stack, run_id)
    expect(page.get_by_text("Canceled").first).to_be_visible()


def test_backfill_is_done(page: Page, stack: Stack, backfill: str) -> None:
    page.goto(f"{stack.webserver.url}/runs?view=backfills")
    expect(page.get_by_text(backfill)).to_be_visible()
    expect(page.get_by_text("Success", exact=True)).to_be_visible(timeout=150_000)
    page.goto(f"{stack.webserver.url}/runs")
    expect(page.get_by_text("dagster-hpc/job-id").first).to_be_visible()
    take_picture(page, "runs")
