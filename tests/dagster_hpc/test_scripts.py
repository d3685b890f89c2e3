"""Batch scripts as they are: their lines, their outputs, and the assets that they make."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster_hpc.commands.asked import Asked
from dagster_hpc.commands.pipes import PipesSlurmClient
from dagster_hpc.commands.sbatch_lines import ScriptError
from dagster_hpc.commands.script_assets import slurm_script_asset
from dagster_hpc.commands.scripts import SlurmScript
from dagster_hpc.options import SlurmOptions

from tests.dagster_hpc.events import failure, materializations, messages


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the code location."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance whose database is in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def script(text: str, name: str = "solve.sbatch") -> str:
    Path(name).write_text(text)
    return name


def test_lines_are_read_as_sbatch_reads_them() -> None:
    """Long and short, with and without =, several a line, quoted, shortened; the last one wins."""
    path = script(
        """#!/bin/bash -l
# A comment, and no end of the lines
#SBATCH -N2 -n 8 --time=1:00:00   # an hour
#SBATCH --partition gpu,"gpu-long"
#SBATCH -J name -o out-%j.log -e=err.log
#SBATCH --gres=gpu:a100:2 --exclusive --no-requeue
#SBATCH -vQ -c 2
#SBATCH --mail-type=end,fail
#SBATCH --hint=nomultithread --contiguous
#SBATCH --tim=2:00:00
##SBATCH --mem=1G

echo begins
#SBATCH --mem=2G
"""
    )
    read = SlurmScript(path)
    assert read.options == SlurmOptions(
        nodes="2",
        ntasks="8",
        time="2:00:00",
        partition="gpu,gpu-long",
        gres="gpu:a100:2",
        exclusive=True,
        requeue=False,
        cpus_per_task="2",
        mail_type="END,FAIL",
        extra={"hint": "nomultithread", "contiguous": True},
    )
    assert [each.partition(":")[0] for each in read.ignored] == [
        "--job-name",
        "--output",
        "--error",
        "--verbose",
        "--quiet",
    ]
    assert read.argv() == ["/bin/bash", "-l", str(Path(path).absolute())]


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("--mem=8GB", SlurmOptions(mem="8G")),
        ("--mem-per-cpu 500mb --tmp=1tB", SlurmOptions(mem_per_cpu="500M", tmp="1T")),
        ("--time=UNLIMITED", SlurmOptions(time="UNLIMITED")),
        ("-t Infinite", SlurmOptions(time="Infinite")),
        ("-L matlab@server:10,ansys", SlurmOptions(licenses="matlab@server:10,ansys")),
        ("--mail-user=a@x.org,b@y.org", SlurmOptions(mail_user="a@x.org,b@y.org")),
        ("--extra=fast", SlurmOptions(extra={"extra": "fast"})),
        ("--extra-node=2", SlurmOptions(extra={"extra-node-info": "2"})),
    ],
)
def test_values_are_those_that_sbatch_takes(line: str, options: SlurmOptions) -> None:
    """One that it takes must not keep a code location from loading."""
    assert SlurmScript(script(f"#!/bin/sh\n#SBATCH {line}\n")).options.tags() == options.tags()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--array=1-10", "--array cannot be set: partitions, or steps that are mapped"),
        ("-a 1-10", "--array cannot be set"),
        ("hetjob", "give each part a job of its own"),
        ("--mem=lots", "'lots' is not a value that sbatch takes"),
        ("--partition", "--partition has no value"),
        ("--memory=3G", "no option --memory"),
        ("--clusters=other", "--clusters cannot be set"),
        ("--export=NONE", "name variables with environment="),
        ("solve", "'solve' is no option of sbatch"),
        ("--comment='a", "No closing quotation"),
    ],
)
def test_what_cannot_be_is_said_with_its_line(line: str, words: str) -> None:
    """At load: file, line, and what to do instead."""
    path = script(f"#!/bin/sh\n\n#SBATCH {line}\n")
    with pytest.raises(ScriptError, match="line 3: ") as caught:
        SlurmScript(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert words in str(caught.value)


def test_options_that_exclude_each_other_are_said() -> None:
    """As sbatch would say when it is too late."""
    path = script("#!/bin/sh\n#SBATCH --mem=1G\n#SBATCH --mem-per-cpu=1G\n")
    with pytest.raises(ScriptError, match="exclude each other"):
        SlurmScript(path)


def test_script_that_is_not_there_is_said() -> None:
    """With the directory that its path is relative to."""
    with pytest.raises(ScriptError, match=r"No such file .* relative to"):
        SlurmScript("jobs/none.sbatch")


@pytest.mark.parametrize("output", ["", "/etc/passwd", "../out", "results/../../out"])
def test_stray_output_is_refused(output: str) -> None:
    """An output is a path below the working directory."""
    path = script("#!/bin/sh\n")
    with pytest.raises(ScriptError, match="must be a path below"):
        SlurmScript(path, outputs={"field": output})


def test_script_makes_its_asset(instance: dg.DagsterInstance) -> None:
    """Its outputs are checked and shown; it knows its partition, and is as it was."""
    text = """#!/usr/bin/env bash
#SBATCH --ntasks=1 --time=5
#SBATCH --chdir=work
set -eu
mkdir -p "results/$DAGSTER_PARTITION_KEY"
echo "$SIZE" >"results/$DAGSTER_PARTITION_KEY/field"
touch -d 'now' part-1.txt; echo a >part-1.txt; echo b >part-2.txt
"""
    Path("work").mkdir()
    path = script(text, "it's a script.sh")
    asset = slurm_script_asset(
        SlurmScript(
            path, outputs={"field": "results/{partition_key}/field", "parts": "part-*.txt"}
        ),
        key="solution",
        environment={"SIZE": "12"},
        partitions_def=dg.StaticPartitionsDefinition(["north", "south"]),
        group_name="solver",
    )
    result = dg.materialize([asset], instance=instance, partition_key="south")
    ((key, metadata),) = materializations(instance, result.run_id)
    assert key == "solution"
    assert metadata["field"] == str(Path("work/results/south/field").absolute())
    assert (metadata["field bytes"], metadata["parts bytes"], metadata["parts files"]) == (3, 4, 2)
    assert Path(path).read_text() == text


def test_missing_empty_and_old_outputs_fail_the_step(instance: dg.DagsterInstance) -> None:
    """All of them at once, though the script has succeeded."""
    Path("old").write_text("of yesterday")
    os.utime("old", (1, 1))
    path = script("#!/bin/sh\n: >empty\n")
    outputs = {"first": "none-*", "second": "empty", "third": "old"}
    asset = slurm_script_asset(SlurmScript(path, outputs=outputs))
    result = dg.materialize([asset], instance=instance, raise_on_error=False)
    failed = failure(result).user_failure_data
    assert failed is not None
    said = failed.description or ""
    assert "first: there is no" in said
    assert "empty is empty" in said
    assert "old is older than the job" in said
    assert materializations(instance, result.run_id) == []


def test_ignored_lines_are_told(instance: dg.DagsterInstance) -> None:
    """Once a run, with the reason."""
    path = script("#!/bin/sh\n#SBATCH -o out.log\n")
    result = dg.materialize([slurm_script_asset(SlurmScript(path))], instance=instance)
    assert any(
        "without effect here: --output" in each for each in messages(instance, result.run_id)
    )


@pytest.mark.parametrize("working_directory", [None, "work"])
def test_script_finds_its_way_to_where_it_was_submitted(
    instance: dg.DagsterInstance,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    working_directory: str | None,
) -> None:
    """The variable says where the op's job was submitted, or is not set at all."""
    monkeypatch.setenv("SLURM_SUBMIT_DIR", "/agent")
    for name in ("work", "elsewhere"):
        Path(name).mkdir()
    path = script('#!/bin/sh\n#SBATCH --chdir=elsewhere\ncd "$SLURM_SUBMIT_DIR" && touch here\n')

    @dg.op
    def solve(context: dg.OpExecutionContext) -> None:
        asked: Asked = {"script": path}
        if working_directory:
            asked["working_directory"] = working_directory
        PipesSlurmClient().run(context=context, **asked)

    @dg.job
    def solving() -> None:
        solve()

    assert solving.execute_in_process(instance=instance).success
    assert (directory / (working_directory or "") / "here").exists()
