"""What slurmrestd is told of a script, and what is made of its answers."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_agent.errors import (
    SchedulerLimitError,
    SchedulerUnavailableError,
    SubmitAmbiguousError,
    SubmitRefusedError,
)
from hpc_agent.jobs.options_table import OPTIONS
from hpc_agent.jobs.rendering import directive
from hpc_agent.slurm.batch_options import parse_options
from hpc_agent.slurm.rest import max_array_size_in
from hpc_agent.slurm.rest_client import Answer, choose
from hpc_agent.slurm.rest_options import OF_22_05, OF_DATA_PARSER, translate
from hpc_agent.slurm.rest_submission import body, job_id_in, read_options
from hpc_agent.slurm.rest_versions import DIALECTS

NEWEST = DIALECTS["v0.0.45"]
OLDEST = DIALECTS["v0.0.38"]


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("--partition=gpu", {"partition": "gpu"}),
        ("--partition gpu --time 5", {"partition": "gpu", "time": "5"}),
        ("-p gpu -N2 -Ht5", {"partition": "gpu", "nodes": "2", "hold": "", "time": "5"}),
        ("--exclusive --nice", {"exclusive": "", "nice": ""}),
        ("--exclusive=user --nice=5", {"exclusive": "user", "nice": "5"}),
        ("--comment='two words' # not an option", {"comment": "two words"}),
    ],
)
def test_options_are_read_as_sbatch_reads_them(line: str, options: dict[str, str]) -> None:
    """Long and short, with and without a value."""
    assert read_options(f"#!/bin/sh\n#SBATCH {line}\ntrue\n#SBATCH --qos=late\n") == options


def test_later_line_wins() -> None:
    """As with sbatch."""
    assert read_options("#!/bin/sh\n#SBATCH -t 5\n\n# text\n#SBATCH --time=7\n") == {"time": "7"}


@pytest.mark.parametrize(
    ("options", "old", "new"),
    [
        ("--account=physics", {"account": "physics"}, {"account": "physics"}),
        ("--begin=now+1hour", {"begin_time": "now+1hour"}, {"begin_time": "now+1hour"}),
        ("--constraint=a&b", {"constraints": "a&b"}, {"constraints": "a&b"}),
        ("--cpus-per-gpu=8", {"cpus_per_gpu": 8}, {"cpus_per_tres": "gres/gpu:8"}),
        ("--cpus-per-task=4", {"cpus_per_task": 4}, {"cpus_per_task": 4}),
        ("--deadline=2030-01-31", {"deadline": "2030-01-31"}, {"deadline": "2030-01-31"}),
        ("--dependency=afterok:7", {"dependency": "afterok:7"}, {"dependency": "afterok:7"}),
        ("--exclude=n[1-2]", {"exclude_nodes": "n[1-2]"}, {"excluded_nodes": ["n[1-2]"]}),
        ("--exclusive", {"exclusive": "exclusive"}, {"shared": ["none"]}),
        ("--exclusive=user", {"exclusive": "user"}, {"shared": ["user"]}),
        ("--gpus=a100:2", {"gpus": "a100:2"}, {"tres_per_job": "gres/gpu:a100:2"}),
        ("--gpus-per-node=4", {"gpus_per_node": "4"}, {"tres_per_node": "gres/gpu:4"}),
        ("--gpus-per-socket=1", {"gpus_per_socket": "1"}, {"tres_per_socket": "gres/gpu:1"}),
        (
            "--gpus-per-task=a100:1",
            {"gpus_per_task": "a100:1"},
            {"tres_per_task": "gres/gpu:a100=1", "tres_bind": "gres/gpu:per_task:1"},
        ),
        ("--gres=gpu:1,tmp:2", {"gres": "gpu:1,tmp:2"}, {"tres_per_node": "gres/gpu:1,gres/tmp:2"}),
        ("--licenses=m:1", {"licenses": "m:1"}, {"licenses": "m:1"}),
        (
            "--mail-type=FAIL,TIME_LIMIT_80",
            {"mail_type": "FAIL,TIME_LIMIT_80"},
            {"mail_type": ["FAIL", "TIME=80%"]},
        ),
        ("--mail-user=me@x.org", {"mail_user": "me@x.org"}, {"mail_user": "me@x.org"}),
        ("--mem=2G", {"memory_per_node": "2G"}, {"memory_per_node": {"set": True, "number": 2048}}),
        (
            "--mem-per-cpu=9",
            {"memory_per_cpu": "9"},
            {"memory_per_cpu": {"set": True, "number": 9}},
        ),
        ("--mem-per-gpu=1G", {"memory_per_gpu": "1G"}, {"memory_per_tres": "gres/gpu:1024"}),
        ("--nice=-5", {"nice": -5}, {"nice": -5}),
        ("--no-requeue", {"no_requeue": True}, {"requeue": False}),
        ("--nodelist=n1", {"nodelist": "n1"}, {"required_nodes": ["n1"]}),
        ("--nodes=1-2", {"nodes": "1-2"}, {"nodes": "1-2"}),
        ("--ntasks=16", {"tasks": 16}, {"tasks": 16}),
        ("--ntasks-per-node=8", {"tasks_per_node": 8}, {"tasks_per_node": 8}),
        ("--partition=a,b", {"partition": "a,b"}, {"partition": "a,b"}),
        ("--qos=high", {"qos": "high"}, {"qos": "high"}),
        ("--requeue", {"requeue": True}, {"requeue": True}),
        ("--reservation=r", {"reservation": "r"}, {"reservation": "r"}),
        (
            "--signal=R:USR1@30",
            {"signal": "R:USR1@30"},
            {
                "kill_warning_flags": ["RESERVATION_JOB"],
                "kill_warning_signal": "USR1",
                "kill_warning_delay": {"set": True, "number": 30},
            },
        ),
        ("--time=1-12", {"time_limit": "1-12"}, {"time_limit": {"set": True, "number": 2160}}),
        ("--time=00:00:61", {"time_limit": "00:00:61"}, {"time_limit": {"set": True, "number": 2}}),
        ("--tmp=1G", {"temporary_disk_per_node": "1G"}, {"temporary_disk_per_node": 1024}),
    ],
)
def test_option_is_a_property(options: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Of 22.05, and of what data_parser plugins made later."""
    read = parse_options(shlex.split(options))
    assert translate(read, OF_22_05) == old
    assert translate(read, OF_DATA_PARSER) == new


@pytest.mark.parametrize("table", [OF_22_05, OF_DATA_PARSER])
@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_that_users_may_set_is_known(name: str, table: Any) -> None:
    """An example of each, as the page of options has it, is translated."""
    option = OPTIONS[name]
    example = option.example.removeprefix("B:")
    value = "" if name in {"requeue", "exclusive"} else example
    assert translate({name: value}, table)


def test_time_without_limit_is_infinite() -> None:
    """Zero minutes are no limit, as with sbatch."""
    for text in ("0", "infinite", "UNLIMITED"):
        assert translate({"time": text}, OF_DATA_PARSER)["time_limit"]["infinite"] is True


def test_gpus_beside_gres_are_one_list() -> None:
    """Two options fill one property."""
    properties = translate({"gres": "tmp:1", "gpus-per-node": "2"}, OF_DATA_PARSER)
    assert properties == {"tres_per_node": "gres/tmp:1,gres/gpu:2"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--hint=nomultithread", "--hint"),
        ("--part=gpu", "--part"),
        ("--export=ALL", "--export"),
        ("--mail-type=LUNCH", "LUNCH is no event"),
        ("hetjob", "hetjob"),
        ("--ntasks=many", "--ntasks=many"),
    ],
)
def test_option_without_property_is_refused_by_name(line: str, words: str, tmp_path: Path) -> None:
    """Nothing is left out in silence; the message names a transport that can."""
    script = f"#!/bin/sh\n#SBATCH {line}\ntrue\n"
    with pytest.raises(SubmitRefusedError) as caught:
        body(script, NEWEST, directory=tmp_path, name="n", comment="c")
    assert words in str(caught.value)
    assert "transport cli or ssh can" in str(caught.value)


def test_warning_to_the_batch_script_is_left_out_on_22_05(tmp_path: Path) -> None:
    """slurmrestd 22.05 refuses whatever begins with ``B:``, and each run has this one."""
    script = "#!/bin/sh\n#SBATCH --signal=B:USR1@60\n"
    old, new = (
        body(script, dialect, directory=tmp_path, name="n", comment="c")["job"]
        for dialect in (OLDEST, NEWEST)
    )
    assert "signal" not in old
    assert new["kill_warning_flags"] == ["BATCH_JOB"]
    with pytest.raises(SubmitRefusedError, match=r"22\.05 takes no B:"):
        body(script.replace("USR1", "HUP"), OLDEST, directory=tmp_path, name="n", comment="c")


def test_lines_of_other_batch_systems_are_refused(tmp_path: Path) -> None:
    """sbatch reads them, slurmrestd does not."""
    with pytest.raises(SubmitRefusedError, match="#PBS -N x"):
        body("#!/bin/sh\n#PBS -N x\n", NEWEST, directory=tmp_path, name="n", comment="c")


@given(value=st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"])))
def test_value_is_never_another_option(value: str) -> None:
    """Whatever is in a value that we have rendered, it is read as that option's value."""
    lines = [f"#SBATCH {directive(f'--comment={value}')}", "#SBATCH --qos=normal"]
    script = "\n".join(["#!/bin/sh", *lines, "true"])
    assert read_options(script) == {"comment": value, "qos": "normal"}


def test_name_comment_and_place_are_ours(tmp_path: Path) -> None:
    """Over what the script says; nothing of the agent's environment goes along."""
    script = "#!/bin/sh\n#SBATCH --job-name=x --comment=y --cpus-per-task=2\ntrue\n"
    posted = body(script, NEWEST, directory=tmp_path, name="n", comment="c", array_size=3)
    job = posted["job"]
    assert posted["script"] == script
    assert (job["name"], job["comment"], job["array"]) == ("n", "c", "0-2")
    assert job["current_working_directory"] == str(tmp_path)
    assert sorted(job["environment"]) == [
        "SLURM_CPUS_PER_TASK=2",
        "SLURM_EXPORT_ENV=NIL",
        f"SLURM_SUBMIT_DIR={tmp_path}",
    ]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(200, {"job_id": 0}, "Invalid partition name specified"), SubmitRefusedError),
        (Answer(500, {}, "Invalid account"), SubmitRefusedError),
        (Answer(500, {}, "Socket timed out on send/recv operation"), SubmitAmbiguousError),
        (
            Answer(500, {}, "Unspecified error", error_numbers=frozenset({-1})),
            SubmitAmbiguousError,
        ),
        (Answer(200, {}), SubmitAmbiguousError),
        (Answer(502, {}, "Bad Gateway", is_from_slurm=False), SubmitAmbiguousError),
        (Answer(500, {}, "AssocMaxSubmitJobLimit"), SchedulerLimitError),
        (Answer(429, {}, "slow down", is_from_slurm=False), SchedulerLimitError),
        (Answer(500, {}, "Unable to contact slurm controller"), SchedulerUnavailableError),
        (Answer(401, {}, "no", is_from_slurm=False), SchedulerUnavailableError),
    ],
)
def test_answer_without_job_says_whether_there_may_be_one(
    answer: Answer, error: type[Exception]
) -> None:
    """Only a refusal of slurmctld, or that it was not asked, is proof of no job."""
    with pytest.raises(error):
        job_id_in(answer)


def test_answer_with_job_is_its_id() -> None:
    """22.05 sends notes beside it, such as that the job is held."""
    answer = Answer(200, {"job_id": 7}, "Job is in held state, pending scheduler release")
    assert job_id_in(answer) == "7"


def test_newest_version_that_both_know_is_chosen() -> None:
    """With or without accounting."""
    paths = dict.fromkeys(
        [
            "/slurm/v0.0.37/ping/",
            "/slurm/v0.0.39/ping/",
            "/slurm/v0.0.38/ping/",
            "/slurmdb/v0.0.38/jobs/",
        ]
    )
    chosen = choose(paths, tuple(DIALECTS))
    assert (chosen.version, chosen.has_accounting) == ("v0.0.38", True)
    assert not choose({"/slurm/v0.0.42/ping/": {}}, tuple(DIALECTS)).has_accounting


def test_largest_array_is_what_the_configuration_says() -> None:
    """MaxArraySize, or a smaller max_array_tasks."""
    conf: dict[str, Any] = {"MaxArraySize": 77, "SchedulerParameters": ["defer"]}
    assert max_array_size_in({"slurm_conf": conf}) == 77
    conf["SchedulerParameters"].append("max_array_tasks=50")
    assert max_array_size_in({"slurm_conf": conf}) == 50
    assert max_array_size_in({}) is None


def test_no_common_version_is_said_with_both_sides() -> None:
    """An administrator sees what to start slurmrestd with."""
    with pytest.raises(SchedulerUnavailableError, match=r"it has v0.0.99, .* speaks v0.0.45,"):
        choose({"/slurm/v0.0.99/ping/": {}}, tuple(DIALECTS))
