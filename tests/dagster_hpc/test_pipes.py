"""Commands as jobs of an op, here as child processes: what they report, and how they end."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_hpc.commands.asked import merged
from dagster_hpc.commands.checkpoint import Checkpoint
from dagster_hpc.commands.pipes import PipesSlurmClient
from dagster_hpc.options import SlurmOptions

from tests.dagster_hpc.events import checks, failure, materializations, messages, plain
from tests.dagster_hpc.programs import REPORTS, bash

Body = Callable[[Any, PipesSlurmClient], Any]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance whose database is in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def run(
    body: Body,
    instance: dg.DagsterInstance,
    check_specs: Sequence[dg.AssetCheckSpec] = (),
    partitions_def: dg.StaticPartitionsDefinition | None = None,
) -> dg.ExecuteInProcessResult:
    """Materialize an asset `field` that does what ``body`` says, of its first partition."""

    @dg.asset(check_specs=check_specs, partitions_def=partitions_def)
    def field(context: dg.AssetExecutionContext, slurm: PipesSlurmClient) -> Any:
        yield from body(context, slurm)

    return dg.materialize(
        [field],
        instance=instance,
        resources={"slurm": PipesSlurmClient()},
        raise_on_error=False,
        partition_key=partitions_def.get_first_partition_key() if partitions_def else None,
    )


def streaming(**asked: Any) -> Body:
    """Return the body of an asset that is made by a command."""
    return lambda context, slurm: slurm.stream(context=context, **asked)


IS_WHOLE = [dg.AssetCheckSpec("is_whole", asset="field")]


def test_stock_package_reports(
    instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing of ours is in the program; its output is that of the step."""

    def body(context: dg.AssetExecutionContext, slurm: PipesSlurmClient) -> Iterator[Any]:
        done = slurm.run(context=context, command=REPORTS, extras={"size": 3})
        assert done.get_custom_messages() == ({"seen": context.run.run_id},)
        yield done.get_materialize_result()

    result = run(body, instance, check_specs=IS_WHOLE)
    assert result.success
    ((asset, metadata),) = materializations(instance, result.run_id)
    assert asset == "field"
    assert (metadata["rows"], metadata["note"]) == (120, "fine")
    assert str(metadata["job_id"]).startswith("process ")
    assert checks(instance, result.run_id) == [("is_whole", True)]
    assert messages(instance, result.run_id).count("extra 3 of attempt 0") == 1
    printed = capfd.readouterr()
    assert "to the log\n" in printed.out
    assert "to the other\n" in printed.err


def test_bash_reports(instance: dg.DagsterInstance) -> None:
    """Quotes, newlines, control characters and any script arrive as they are."""
    text = """
        name=$'a "quoted" \\\\ line\\nand\\ttab \\001 ünï'
        of=$(dagster_context extras.of)
        dagster_log info "partition $(dagster_context partition_key) of $of"
        dagster_log warning "$name"
        dagster_materialize -v 9 rows:int=120 mean:float=0.5 note="$name" out:path=a.txt
        dagster_check is_whole true gaps:int=0
        echo "none: $(dagster_context nothing none)"
    """
    extras = {"of": 'tab\t "all"\\'}
    result = run(
        streaming(command=bash(text), extras=extras),
        instance,
        check_specs=IS_WHOLE,
        partitions_def=dg.StaticPartitionsDefinition(["north", "south"]),
    )
    assert result.success
    hostile = 'a "quoted" \\ line\nand\ttab \x01 ünï'
    said = messages(instance, result.run_id)
    assert f"partition north of {extras['of']}" in said
    assert hostile in said
    ((_, metadata),) = materializations(instance, result.run_id)
    assert metadata["rows"] == 120
    assert metadata["mean"] == 0.5
    assert metadata["note"] == hostile
    assert checks(instance, result.run_id) == [("is_whole", True)]


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="no R here: install r-base-core")
def test_r_reports(instance: dg.DagsterInstance) -> None:
    """By a file without packages; text arrives as it is."""
    program = r"""
        source(Sys.getenv("DAGSTER_HPC_PIPES_R"))
        of <- dagster_context("extras.of")
        dagster_log("info", paste0("of ", of, "|", dagster_context("no", "-")))
        dagster_materialize(list(rows = 120L, mean = 0.5, ok = TRUE, note = "a \"q\" \\\n\tb",
                                 out = c(path = "a.txt")))
        dagster_check("is_whole", TRUE, list(gaps = 0L))
    """
    extras = {"of": 'tab\t "all"\\ \n.'}
    result = run(
        streaming(command=["Rscript", "-e", program], extras=extras), instance, check_specs=IS_WHOLE
    )
    assert result.success
    assert f"of {extras['of']}|-" in messages(instance, result.run_id)
    ((_, metadata),) = materializations(instance, result.run_id)
    assert (metadata["rows"], metadata["mean"], metadata["ok"]) == (120, 0.5, True)
    assert metadata["note"] == 'a "q" \\\n\tb'
    assert metadata["out"] == "a.txt"
    assert checks(instance, result.run_id) == [("is_whole", True)]


def test_command_without_pipes_makes_its_asset(instance: dg.DagsterInstance) -> None:
    """It says nothing, so that its success says all; two calls are two jobs."""

    def body(context: dg.AssetExecutionContext, slurm: PipesSlurmClient) -> Iterator[Any]:
        slurm.run(context=context, command=["true"])
        yield from slurm.stream(context=context, command=["true"])

    result = run(body, instance)
    assert [asset for asset, _ in materializations(instance, result.run_id)] == ["field"]
    assert sum("ended with exit code 0" in each for each in messages(instance, result.run_id)) == 2


def test_op_passes_on_what_is_reported(instance: dg.DagsterInstance) -> None:
    """An op makes no asset: what is reported are events of others."""

    @dg.op
    def work(context: dg.OpExecutionContext) -> Iterator[Any]:
        text = "dagster_materialize -a raw/rows n:int=1; dagster_check -a raw/rows is_whole false"
        yield from PipesSlurmClient().stream(context=context, command=bash(text))
        yield dg.Output(None)

    @dg.job
    def works() -> None:
        work()

    result = works.execute_in_process(instance=instance)
    ((asset, metadata),) = materializations(instance, result.run_id)
    assert (asset, metadata["n"]) == ("raw/rows", 1)
    assert checks(instance, result.run_id) == [("is_whole", False)]


def test_check_is_made_by_a_command(instance: dg.DagsterInstance) -> None:
    """A check of its own, whose answer the command gives."""

    @dg.asset_check(asset="field")
    def is_whole(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        command = bash("dagster_check -a field is_whole true")
        done = PipesSlurmClient().run(context=context, command=command)
        return done.get_asset_check_result()

    job = dg.define_asset_job("checks", dg.AssetSelection.checks(is_whole))
    defs = dg.Definitions(assets=[dg.AssetSpec("field")], asset_checks=[is_whole], jobs=[job])
    result = defs.resolve_job_def("checks").execute_in_process(instance=instance)
    assert checks(instance, result.run_id) == [("is_whole", True)]


def test_failure_says_how_it_ended(instance: dg.DagsterInstance) -> None:
    """Exit code, job and the last words, in the error and as metadata."""
    command = ["bash", "-c", "echo 'no such mesh' >&2; exit 3"]
    result = run(streaming(command=command), instance)
    failed = failure(result)
    assert failed.user_failure_data is not None
    assert "ended with exit code 3" in (failed.user_failure_data.description or "")
    assert "no such mesh" in (failed.user_failure_data.description or "")
    metadata = plain(failed.user_failure_data.metadata)
    assert metadata["exit_code"] == 3
    assert metadata["state"] == "FAILED"


def test_signal_is_told(instance: dg.DagsterInstance) -> None:
    """A crash is told by its signal."""
    command = ["bash", "-c", "kill -SEGV $$"]
    result = run(streaming(command=command), instance)
    failed = failure(result).user_failure_data
    assert failed is not None
    assert "ended by signal 11" in (failed.description or "")


def test_time_out_ends_the_command(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """It is told to end, and what it says meanwhile still arrives."""
    text = f"trap 'dagster_log info tidied; exit 1' INT; touch {tmp_path}/up; sleep 60 & wait"
    result = run(
        streaming(command=bash(text), time_out=1.5),
        instance,
    )
    failed = failure(result).user_failure_data
    assert failed is not None
    assert "was ended after 1.5 s" in (failed.description or "")
    assert "tidied" in messages(instance, result.run_id)


def test_hostile_messages_are_told_once_and_passed_over(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Whatever a program writes to the file, the others of its messages arrive."""
    lines = [
        "",
        "no json",
        "[1, 2]",
        '{"method": 3}',
        '{"method": "log"}',
        '{"method": "log", "params": {"message": "x", "level": "loud"}}',
        '{"method": "report_asset_materialization", "params": {"asset_key": 1}}',
        '{"method": "report_asset_check", "params": {}}',
        '{"method": "closed", "params": {"exception": 7}}',
        '{"method": "shutdown", "params": {}}',
        "[" * 100_000,
        "\udcff",
        "x" * (5 << 20),
        '{"method": "log", "params": {"message": "after all", "level": "INFO"}}',
    ]
    written = tmp_path / "lines"
    written.write_bytes(b"\n".join(each.encode("utf-8", "surrogateescape") for each in lines))
    command = ["bash", "-c", f'cat {written} >>"$DAGSTER_HPC_EXCHANGE/messages.jsonl"']
    result = run(streaming(command=command), instance)
    assert result.success
    said = messages(instance, result.run_id)
    skipped = [each for each in said if "is skipped" in each]
    assert [int(each.split()[1]) for each in skipped] == list(range(1, len(lines)))
    assert max(map(len, skipped)) < 1000
    assert "after all" in said


def test_files_that_are_not_files_any_more_are_left_alone(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """A FIFO or a link in the place of the messages keeps nobody waiting, and leads nowhere."""
    secret = tmp_path / "secret"
    secret.write_text('{"method": "log", "params": {"message": "secret", "level": "info"}}\n')
    for replace in ("mkfifo", f"ln -s {secret}"):
        text = f'cd "$DAGSTER_HPC_EXCHANGE"; rm messages.jsonl; {replace} messages.jsonl; sleep 1'
        command = ["bash", "-ec", text]
        result = run(streaming(command=command), instance)
        assert result.success
        said = messages(instance, result.run_id)
        assert sum("no more messages of the job are read" in each for each in said) == 1
        assert "secret" not in said


def test_command_goes_on_in_another_job(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """Until it is done: with the checkpoints of before, and the log of all of its jobs."""
    text = """
        count=$(cat "$DAGSTER_HPC_CHECKPOINT_DIRECTORY/count" 2>/dev/null || echo 0)
        dagster_log info "begins at $count"
        echo $((count + 1)) >"$DAGSTER_HPC_CHECKPOINT_DIRECTORY/count"
        [ "$count" = 2 ] || exit 85
        dagster_materialize count:int=$count
    """
    kept = Checkpoint(directory=str(tmp_path), resubmissions=2)
    result = run(
        streaming(command=bash(text), checkpoint=kept),
        instance,
    )
    assert result.success
    said = messages(instance, result.run_id)
    assert [each for each in said if each.startswith("begins")] == [
        f"begins at {count}" for count in range(3)
    ]
    assert [data["count"] for _, data in materializations(instance, result.run_id)] == [2]


def test_command_goes_on_so_often_only(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """One that always asks for another job does not get one for ever."""
    kept = Checkpoint(directory=str(tmp_path), resubmissions=2)
    result = run(
        streaming(command=["bash", "-c", "exit 85"], checkpoint=kept),
        instance,
    )
    failed = failure(result).user_failure_data
    assert failed is not None
    assert "2 more were all it may have" in (failed.description or "")


def test_heterogeneous_command_is_refused(instance: dg.DagsterInstance) -> None:
    """With the reason, and what to do instead."""
    command = ["srun", "-n1", "ocean", ":", "-n4", "atmosphere"]
    result = run(streaming(command=command), instance)
    error = failure(result).error
    assert error is not None
    assert "--multi-prog" in (error.cause or error).message


def test_options_of_the_call_win_over_those_of_the_client() -> None:
    """Also over what excludes them; the rarer ones are put together."""
    client = SlurmOptions(mem="8G", partition="gpu", extra={"hint": "nomultithread"})
    call = SlurmOptions(mem_per_cpu="2G", extra={"contiguous": True})
    found = merged(client.tags(), call.tags())
    assert found == {
        "dagster-hpc/mem-per-cpu": "2G",
        "dagster-hpc/partition": "gpu",
        "dagster-hpc/extra": json.dumps({"contiguous": True, "hint": "nomultithread"}),
    }


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="no MPI here: install openmpi-bin")
@pytest.mark.parametrize("where", ["job", "allocation"])
def test_parallel_command_runs_without_slurm(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As many processes as the options say, by mpiexec; in a job or in the op's own."""
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    command = bash('dagster_log info "rank $OMPI_COMM_WORLD_RANK"')
    options = SlurmOptions(nodes="2", ntasks_per_node=1)
    result = run(streaming(command=command, mpi=True, options=options, where=where), instance)
    assert result.success
    said = messages(instance, result.run_id)
    assert sorted(each for each in said if each.startswith("rank")) == ["rank 0", "rank 1"]


def test_job_that_was_started_again_reports_once(instance: dg.DagsterInstance) -> None:
    """Its first reports count: Dagster has them already. What it logs is logged."""
    text = """
        for start in 1 2; do
            dagster_log info "start $start"
            dagster_materialize start:int=$start
            dagster_check is_whole true start:int=$start
        done
    """
    result = run(streaming(command=bash(text)), instance, check_specs=IS_WHOLE)
    assert result.success
    ((_, metadata),) = materializations(instance, result.run_id)
    assert metadata["start"] == 1
    assert checks(instance, result.run_id) == [("is_whole", True)]
    said = messages(instance, result.run_id)
    assert [each for each in said if each.startswith("start")] == ["start 1", "start 2"]
