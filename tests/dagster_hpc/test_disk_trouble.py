"""A shared file system in trouble for a while: commands go on, and all that they say arrives."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_hpc.commands.exchange import Exchange
from dagster_hpc.commands.messages import Messages, Reported
from dagster_hpc.commands.pipes import PipesSlurmClient

from tests.dagster_hpc.events import materializations, messages
from tests.dagster_hpc.leases import leased
from tests.disks import mounted_disk

# Its messages cannot be opened for some seconds, which begin before its end.
LEASES = """
import fcntl, json, os, signal, sys, time

def say(method, **params):
    os.write(file, json.dumps({"method": method, "params": params}).encode() + b"\\n")

signal.signal(signal.SIGIO, signal.SIG_IGN)
file = os.open(os.environ["DAGSTER_HPC_EXCHANGE"] + "/messages.jsonl", os.O_RDWR | os.O_APPEND)
say("log", message="before", level="info")
while True:
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        break
    except BlockingIOError:  # it is being read
        time.sleep(0.01)
say("report_asset_materialization", asset_key="field", data_version=None,
    metadata={"rows": {"raw_value": 120, "type": "int"}})
say("log", message="after", level="info")
if sys.argv[1] == "at the end":
    begun, begins = os.pipe()
    if os.fork():
        os._exit(os.read(begun, 1) != b"!")
    os.setsid()  # the group of the command ends with it
    os.write(begins, b"!")
time.sleep(3)
"""

FILLS = """
say() { echo '{"method": "log", "params": {"level": "info", "message": "'$1'"}}' >>"$messages"; }
messages=$DAGSTER_HPC_EXCHANGE/messages.jsonl
say before
cat /dev/zero >"$DISK/ballast" 2>/dev/null || true
say full
sleep 2
rm "$DISK/ballast"
say after
sleep 2.5
cp "$messages" "$DAGSTER_HPC_EXCHANGE/delivered.json" "$KEPT"
"""


def materialized(
    instance: dg.DagsterInstance, *command: str, **environment: str
) -> dg.ExecuteInProcessResult:
    """Materialize an asset `field` by a command."""

    @dg.asset
    def field(context: dg.AssetExecutionContext, slurm: PipesSlurmClient) -> Iterator[Any]:
        yield from slurm.stream(context=context, command=command, environment=environment)

    return dg.materialize(
        [field],
        instance=instance,
        resources={"slurm": PipesSlurmClient()},
        raise_on_error=False,
    )


@pytest.mark.parametrize("when", ["meanwhile", "at the end"])
def test_messages_that_cannot_be_read_for_a_while_arrive(when: str) -> None:
    """Each once, also those of a command that has ended by then."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = materialized(instance, sys.executable, "-c", LEASES, when)
        assert result.success
        said = Counter(messages(instance, result.run_id))
        assert (said["before"], said["after"]) == (1, 1)
        ((_, metadata),) = materializations(instance, result.run_id)
        assert metadata["rows"] == 120


def test_full_disk_ends_no_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written down is said once, and written when there is room again."""
    with mounted_disk(tmp_path / "disk") as disk, dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setattr("tempfile.tempdir", str(disk.path))
        places = {"DISK": str(disk.path), "KEPT": str(tmp_path)}
        result = materialized(instance, "bash", "-ec", FILLS, **places)
        assert result.success
        said = Counter(messages(instance, result.run_id))
        assert [said[word] for word in ("before", "full", "after")] == [1, 1, 1]
        assert sum("is not written down: [Errno 28]" in each for each in said.elements()) == 1
        delivered = json.loads((tmp_path / "delivered.json").read_text())
        assert delivered["offset"] == (tmp_path / "messages.jsonl").stat().st_size


def test_messages_that_stay_unreadable_are_no_empty_ones(tmp_path: Path) -> None:
    """Who has asked is told that it was not all, and may ask again."""
    exchange = Exchange(str(tmp_path))
    exchange.prepare({})
    context = dg.build_op_context()
    handed_on = Messages(context, exchange, Reported(context), name="solve", logged=Counter())
    with leased(Path(exchange.messages)):
        assert not handed_on.pass_on_the_rest(time.monotonic())
    assert handed_on.pass_on_the_rest(time.monotonic())
