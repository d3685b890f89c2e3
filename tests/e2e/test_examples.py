"""The projects of examples/ do on a real Slurm, and without one, what their pages say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hpc_agent.demo.processes import wait_for
from hpc_agent.demo.stack import Stack
from hpc_agent.inspection.jobs import read_jobs
from hpc_agent.store.selection import EVERYTHING
from tests.cluster import SlurmCluster
from tests.e2e.conftest import choice_of, empty_stack
from tests.preemption import slurm, start_requeued

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).parents[2] / "examples"
SAMPLES = ("lake", "river", "sewage")
# More than there is time for until the job is requeued.
EPOCHS = 60
# Open MPI wants this of root, and cores for each of its processes.
MPI_AS_ROOT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}
needs_minimap2 = pytest.mark.skipif(
    not shutil.which("minimap2"), reason="no minimap2 here: install it"
)
needs_mpi = pytest.mark.skipif(
    not shutil.which("mpirun"), reason="no Open MPI here: install openmpi-bin"
)


def location(directory: Path) -> tuple[str, dict[str, Any]]:
    """Return a project's name and entry of dagster_cloud.yaml, which names where it is."""
    (entry,) = yaml.safe_load((directory / "dagster_cloud.yaml").read_text())["locations"]
    return entry.pop("location_name"), {**entry, "working_directory": str(directory)}


@pytest.fixture(scope="module")
def stack(slurm_cluster: SlurmCluster) -> Iterator[Stack]:
    """A stack with a copy of the examples on the file system that nodes share."""
    settings: dict[str, Any] = {
        "scheduler": {"poll_seconds": 1, "commands_per_second": 20},
        "relay": {"bind": "127.0.0.1"},
        # Not in jobs: a run of these takes both nodes.
        "code_servers": {"placement": "login"},
        "locations": {"mpi": {"environment": {"variables": MPI_AS_ROOT}}},
    }
    with empty_stack(choice_of(slurm_cluster), **settings) as started:
        copied = shutil.copytree(EXAMPLES, started.directories.shared / "examples")
        locations = dict(location(path.parent) for path in copied.glob("*/dagster_cloud.yaml"))
        assert sorted(locations) == ["genomics", "mpi", "training"]
        started.deploy(locations)
        for name in locations:
            started.wait_loaded(name)
        yield started


@pytest.fixture(scope="module")
def launched(stack: Stack) -> dict[str, str]:
    """Runs that go on beside each other and beside the tests, by sample or asset."""
    per_sample = ["reads", "alignments", "coverage"]
    runs = {
        sample: stack.webserver.launch(
            "genomics", "__ASSET_JOB", assets=per_sample, tags={"dagster/partition": sample}
        )
        for sample in SAMPLES
    }
    return runs | {
        "temperature": stack.webserver.launch("mpi", "__ASSET_JOB", assets=["temperature"])
    }


def metadata_of(stack: Stack, run_id: str, asset: str) -> dict[str, Any]:
    """Return what a finished run says of an asset, by label."""
    assert stack.wait_finished(run_id) == "SUCCESS", "\n".join(messages(stack, run_id))
    (told,) = (
        each["metadataEntries"]
        for each in stack.webserver.run(run_id)["assetMaterializations"]
        if each["assetKey"]["path"] == [asset]
    )
    values = ("intValue", "floatValue", "text", "mdStr", "path")
    return {
        entry["label"]: next((entry[value] for value in values if value in entry), None)
        for entry in told
    }


def messages(stack: Stack, run_id: str) -> list[str]:
    return [event.get("message") or "" for event in stack.webserver.events(run_id)]


def epochs_told(stack: Stack, run_id: str) -> list[int]:
    """Return the epochs of a training in the order of its log."""
    found = (re.match(r"epoch (\d+): loss", text) for text in messages(stack, run_id))
    return [int(each[1]) for each in found if each]


@pytest.mark.slurm
@pytest.mark.usefixtures("launched")
def test_requeued_training_goes_on_after_its_last_checkpoint(
    stack: Stack, slurm_cluster: SlurmCluster
) -> None:
    """No epoch is trained twice, and none is left out."""
    config = {"ops": {"digit_classifier": {"config": {"epochs": EPOCHS, "hidden_units": 256}}}}
    run_id = stack.webserver.launch("training", "train", config=config)
    checkpoints = stack.directories.shared / "examples/training/checkpoints" / run_id
    checkpoint = checkpoints / "digit_classifier" / "last.joblib"
    wait_for("no epoch ends", checkpoint.exists, seconds=120, alive=[stack.agent])
    (job_id,) = (
        row["job_id"]
        for row in read_jobs(stack.config, EVERYTHING)
        if row["run_id"] == run_id and row["kind"] == "step"
    )
    slurm(slurm_cluster, "scontrol", "requeue", job_id)
    waiting = "squeue", "--noheader", f"--jobs={job_id}", "--format=%T %r"
    wait_for(
        "the job does not wait again",
        lambda: "PENDING BeginTime" in slurm(slurm_cluster, *waiting),
        seconds=60,
    )
    start_requeued(slurm_cluster, job_id)
    told = metadata_of(stack, run_id, "digit_classifier")
    resumed_after = told["resumed_after_epoch"]
    assert 1 <= resumed_after < EPOCHS
    assert f"going on after epoch {resumed_after}" in messages(stack, run_id)
    epochs = epochs_told(stack, run_id)
    assert epochs[resumed_after - EPOCHS :] == list(range(resumed_after + 1, EPOCHS + 1))
    assert len(epochs) == len(set(epochs))
    assert told["accuracy"] > 0.9
    evaluated = [text for text in messages(stack, run_id) if "reads_unseen_digits" in text]
    assert any("passed" in text for text in evaluated), evaluated


@pytest.mark.slurm
@needs_minimap2
def test_report_compares_the_samples(stack: Stack, launched: dict[str, str]) -> None:
    """Each is a run of its own, by the tool's threads that its job has CPUs for."""
    depths = []
    for sample in SAMPLES:
        assert metadata_of(stack, launched[sample], "alignments")["threads"] == 2
        covered = metadata_of(stack, launched[sample], "coverage")
        assert covered["breadth"] > 0.99
        depths.append(covered["mean_depth"])
    assert depths == pytest.approx([15, 40 * 0.9, 90 * 0.6], rel=0.1)
    run_id = stack.webserver.launch("genomics", "__ASSET_JOB", assets=["report"])
    told = metadata_of(stack, run_id, "report")
    assert told["samples"] == len(SAMPLES)
    assert all(f"\n| {sample} |" in told["report"] for sample in SAMPLES)


@pytest.mark.slurm
@needs_mpi
def test_plate_is_computed_on_two_nodes(stack: Stack, launched: dict[str, str]) -> None:
    """And right, which it is not without the rows of the neighbour."""
    told = metadata_of(stack, launched["temperature"], "temperature")
    assert (told["ranks"], told["nodes"]) == (2, "c1, c2")
    assert told["error"] < 1e-3
    assert told["picture"].startswith("![temperature](data:image/png;base64,")


def test_interrupted_training_gives_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint holds all that the next epoch depends on."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "training"))
    from training.assets import Training
    from training.checkpoint import Checkpoint, load
    from training.digits import load_split
    from training.train import untrained

    digits = load_split()
    first = Checkpoint(model=untrained(Training().model_dump())).next(digits)
    first.save(tmp_path / "last")
    through = first.next(digits)
    saved = load(tmp_path / "last")
    assert saved is not None
    resumed = saved.next(digits)
    assert resumed.epochs == through.epochs
    assert all(map(np.array_equal, resumed.model.coefs_, through.model.coefs_))


@pytest.mark.parametrize(
    ("example", "module", "options", "made"),
    [
        pytest.param(
            "genomics",
            "genomics.definitions",
            ("--select", "reads,alignments,coverage", "--partition", "lake"),
            "results/lake/alignments.paf",
            marks=needs_minimap2,
        ),
        (
            "training",
            "training.definitions",
            ("--select", "digit_classifier"),
            "checkpoints/*/digit_classifier/last.joblib",
        ),
        pytest.param(
            "mpi",
            "heat.definitions",
            ("--select", "temperature"),
            "results/*/temperature.npy",
            marks=needs_mpi,
        ),
    ],
)
def test_example_runs_on_a_laptop(
    tmp_path: Path, example: str, module: str, options: tuple[str, ...], made: str
) -> None:
    """Without Slurm, agent and control plane."""
    project = shutil.copytree(EXAMPLES / example, tmp_path / example)
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "asset", "materialize", "-m", module, *options],
        cwd=project,
        env={**os.environ, **MPI_AS_ROOT, "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(list(project.glob(made))) == 1
