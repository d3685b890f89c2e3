"""Compute logs of two gateways that know of each other only by what is stored."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager

from hpc_agent.control_plane.compute_logs import ComputeLogStore, LogUpload
from hpc_agent.control_plane.log_following import follow_uploads
from hpc_agent.inbound.log_key import LogKey
from tests.control_plane.running import poll

KEY = LogKey(("run", "compute_logs", "step"))
OUT, ERR = ComputeIOType.STDOUT, ComputeIOType.STDERR


@pytest.fixture
def manager(tmp_path: Path) -> LocalComputeLogManager:
    return LocalComputeLogManager(str(tmp_path))


@pytest.fixture
def gateways(manager: LocalComputeLogManager) -> tuple[ComputeLogStore, ComputeLogStore]:
    return ComputeLogStore(manager), ComputeLogStore(manager)


def put(
    store: ComputeLogStore, text: str, io_type: ComputeIOType = OUT, *, partial: bool = False
) -> None:
    upload = LogUpload(log_key=KEY, io_type=io_type, partial=partial)
    file = store.spool(upload)
    file.write(text.encode())
    store.finish(upload, file)


def stored(manager: LocalComputeLogManager) -> str:
    return (manager.get_log_data(KEY.parts).stdout or b"").decode()


def test_late_part_replaces_no_whole_log(
    gateways: tuple[ComputeLogStore, ComputeLogStore], manager: LocalComputeLogManager
) -> None:
    """Neither an empty one, at another gateway, nor before stderr has come to its end."""
    one, other = gateways
    put(one, "all of it")
    put(other, "", partial=True)
    put(other, "all of it, once more", partial=True)
    assert stored(manager) == "all of it"
    assert not manager.is_capture_complete(KEY.parts)
    put(other, "", ERR)
    assert manager.is_capture_complete(KEY.parts)
    put(ComputeLogStore(manager), "", partial=True)
    assert stored(manager) == "all of it"


def test_parts_that_come_in_disorder_do_not_shrink_a_log(
    gateways: tuple[ComputeLogStore, ComputeLogStore], manager: LocalComputeLogManager
) -> None:
    """The webserver follows by offset, and would miss what is taken back."""
    one, other = gateways
    put(one, "one two", partial=True)
    put(other, "one", partial=True)
    assert stored(manager) == "one two"
    put(other, "one two three")
    put(one, "one two")
    assert stored(manager) == "one two three"


def test_parts_and_whole_at_once_end_whole(
    gateways: tuple[ComputeLogStore, ComputeLogStore], manager: LocalComputeLogManager
) -> None:
    """Whatever comes first; the rest of a run's directory stays as Dagster knows it."""
    text = "".join(f"{number}\n" for number in range(200))
    parts = [text[:cut] for cut in range(0, len(text), 7)]
    threads = [
        threading.Thread(target=put, args=(gateways[at % 2], part), kwargs={"partial": True})
        for at, part in enumerate(parts)
    ]
    threads.insert(len(parts) // 2, threading.Thread(target=put, args=(gateways[0], text)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored(manager) == text
    keys = manager.get_log_keys_for_log_key_prefix(KEY.parts[:-1], OUT)
    assert keys == [list(KEY.parts)]


def test_open_page_follows_what_is_uploaded(
    gateways: tuple[ComputeLogStore, ComputeLogStore], manager: LocalComputeLogManager
) -> None:
    """From before the first part on, and while other pages are opened and closed."""
    follow_uploads(manager)
    seen: list[bytes] = []
    subscription = manager.subscribe(KEY.parts)
    subscription(lambda data: seen.append(data.stdout or b""))
    try:
        for text in ("one", "one two", "one two three"):
            put(gateways[0], text, partial=True)
            others = [manager.subscribe(("run", "compute_logs", str(n))) for n in range(50)]
            for other in others:
                other.dispose()
            poll(lambda text=text: b"".join(seen) == text.encode(), f"{text!r} on the page", 60)  # type: ignore[misc]
    finally:
        subscription.dispose()


def test_upload_that_a_killed_gateway_left_is_removed_with_the_next_whole_one(
    gateways: tuple[ComputeLogStore, ComputeLogStore], manager: LocalComputeLogManager
) -> None:
    """One that goes on in another process stays, and so do those of other logs."""
    going_on, other = gateways
    part = LogUpload(log_key=KEY, io_type=OUT, partial=True)
    young, elsewhere = going_on.spool(part), going_on.spool(replace(part, io_type=ERR))
    left = Path(young.name).with_name(f"{Path(young.name).name}left")
    for path in (left, Path(f"{elsewhere.name}left")):
        path.touch()
    put(other, "some", partial=True)
    assert left.exists()
    put(other, "all of it")
    assert not left.exists()
    assert Path(f"{elsewhere.name}left").exists()
    going_on.finish(part, young)
    assert stored(manager) == "all of it"
