"""What cannot be read is not absent: every parser on output that something has spoilt."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_agent.errors import SchedulerUnavailableError, SchedulerUnreadableError
from hpc_agent.slurm import queue_position, sacct, sbatch, scontrol, sinfo, squeue, usage
from hpc_agent.slurm.printed import shortened
from hpc_agent.slurm.said_once import SaidOnce
from hpc_agent.slurm.scheduler import JobRecord, Look, found_in, is_called
from hpc_agent.slurm.state import JobState
from hpc_agent.slurm.values import (
    FIELD,
    RECORD,
    duration_or_none,
    parse_exit_code,
    parse_job_id,
    parse_job_ids,
    parse_size,
    parse_time,
)
from tests.slurm.printing import sacct_text, squeue_text
from tests.slurm.recording import read

BANNER = "Welcome!"
# Names that a site or a user may give, none of which may spoil a record.
HOSTILE = [
    "two\nlines",
    "\n17\x1f17\x1e",
    "\x1f\x1e\x1f",
    "17\n18",
    "ünïcödé 计算",
    "a, b; c|d",
    "nul\x00 and \ufffd",
    "\x0b\x0c\x1c\x85\u2028",
    "RUNNING\n99",
]
# A record that accounting has written before it was told whose it is (22.05).
NOBODYS = {
    "State": "PENDING",
    "Submit": "1700000000",
    "Start": "1700000001",
    "End": "Unknown",
    "WorkDir": "",
    "SubmitLine": "",
    "JobName": "allocation",
    "Comment": "",
}
NOBODYS_START = datetime.fromtimestamp(1700000001, UTC)


@pytest.mark.parametrize("text", HOSTILE)
def test_names_spoil_no_record(text: str) -> None:
    """Nobody can write the separators of this process into a name."""
    jobs = ({"Name": text, "Comment": text, "WorkDir": text, "Command": text}, {"JobArrayID": "18"})
    look = squeue.parse(squeue_text(*jobs))
    assert look.is_complete
    assert [(job.job_id, job.name) for job in look.records] == [
        ("17", text),
        ("18", "hpc-agent:run-1"),
    ]
    rows = ({"JobName": text, "Comment": text, "WorkDir": text}, {"JobID": "18", "JobIDRaw": "18"})
    accounted = sacct.parse(sacct_text(*rows))
    assert accounted.is_complete
    assert [(job.job_id, job.name) for job in accounted.records] == [
        ("17", text),
        ("18", "hpc-agent:run-1"),
    ]


@pytest.mark.parametrize("glue", ["\n", "", "\n\n17\n"])
def test_a_banner_before_the_output_is_noise(glue: str) -> None:
    """The first record is read right, whatever the banner ends with."""
    for look in (
        squeue.parse(f"{BANNER}{glue}{squeue_text({})}"),
        sacct.parse(f"{BANNER}{glue}{sacct_text({})}"),
    ):
        assert [job.job_id for job in look.records] == ["17"]
        assert look.is_complete
        assert BANNER in look.noise


@pytest.mark.parametrize(
    ("look", "records"),
    [
        (squeue.parse(""), 0),
        (squeue.parse("\n"), 0),
        (squeue.parse("slurm_load_jobs error: Unable to contact\n"), 0),
        (squeue.parse(squeue_text({}).partition("\n")[2]), 1),
        (squeue.parse(squeue_text({}, {"JobArrayID": "18"})[:-1]), 2),
        (squeue.parse(squeue_text({}) + "1"), 1),
        (squeue.parse(squeue_text({}) + f"18{FIELD}RUN"), 1),
        (squeue.parse(squeue_text({}, {"JobArrayID": "Welcome18"})), 1),
        (squeue.parse(squeue_text({}, {"JobArrayID": "18_[3-5]"})), 1),
        (squeue.parse(squeue_text({}, {"JobArrayID": "\u0661\u0668"})), 1),
        (squeue.parse(squeue_text({}, {"JobArrayID": "9" * 50})), 1),
        (squeue.parse(squeue_text({}, {"JobArrayID": "18", "State": "RUN\nhi\nNING"})), 1),
        (squeue.parse(squeue_text({}, {"JobArrayID": "18", "State": ""})), 1),
        (squeue.parse(squeue_text({}, {"JobArrayID": "18", "SubmitTime": "yesterday"})), 1),
        (squeue.parse(squeue_text({}, {"JobArrayID": "18", "SubmitTime": "9" * 17})), 1),
        (sacct.parse(""), 0),
        (sacct.parse("Welcome!\n"), 0),
        (sacct.parse(sacct_text({}).partition("\n")[2]), 1),
        (sacct.parse(sacct_text({}) + "18"), 1),
        (sacct.parse(sacct_text({}) + f"18{FIELD}RUN"), 1),
        (sacct.parse(sacct_text({}, {"JobID": "18", "JobIDRaw": "1"})), 1),
        (sacct.parse(sacct_text({"JobID": "17_[3,5,...]"}, {})), 1),
        (sacct.parse(sacct_text({"JobID": "17_[3...]"}, {})), 1),
        (sacct.parse(sacct_text({"JobID": "17_[0-4000000000]"}, {})), 1),
        (sacct.parse(sacct_text({"State": "CANCELLED by nobody"}, {})), 1),
        (sacct.parse(sacct_text({"Submit": "2026-99-99T00:00:00"}, {})), 1),
    ],
)
def test_what_cannot_be_read_is_told(look: Look, records: int) -> None:
    """Its neighbours are read, and no job is absent meanwhile."""
    assert len(look.records) == records
    assert not look.is_complete


def test_accounting_that_does_not_know_yet_whose_a_job_is_is_not_read() -> None:
    """A record of 22.05 that was written before the job's start: PENDING, and named allocation."""
    look = sacct.parse(sacct_text(NOBODYS), now=NOBODYS_START + timedelta(seconds=60))
    assert look == Look(unreadable=look.unreadable)
    assert not look.is_complete
    assert sacct.parse(sacct_text({**NOBODYS, "Comment": "run-1"})).records


def test_a_torn_record_hides_no_other() -> None:
    """The line after it is read by itself."""
    first, second = sacct_text({}), sacct_text({"JobID": "18", "JobIDRaw": "18"})
    torn = f"{first[: len(first) // 2]}\n{second.partition(chr(10))[2]}"
    look = sacct.parse(
        f"{sacct_text()}{torn.partition(chr(10))[2]}{sacct_text({}).partition(chr(10))[2]}"
    )
    assert "17" in {job.job_id for job in look.records}
    assert {job.job_id for job in look.records} <= {"17", "18"}


def test_two_names_under_one_id_are_two_jobs() -> None:
    """A controller that lost its state gives ids again; attempts of one job have one name."""
    rows = [
        {"JobName": "hpc-agent:new", "Submit": "1700000900", "State": "RUNNING"},
        {"JobName": "hpc-agent:old", "Submit": "1700000100", "State": "REQUEUED"},
        {"JobName": "hpc-agent:old", "Submit": "1700000200", "State": "FAILED"},
    ]
    records = sacct.parse(sacct_text(*rows)).records
    assert [(job.name, job.state) for job in records] == [
        ("hpc-agent:old", JobState.FAILED),
        ("hpc-agent:new", JobState.RUNNING),
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("exit_code", "\u00b2"),
        ("restartcnt", "\u00b2"),
        ("restartcnt", "9" * 5000),
        ("exit_code", "9" * 5000),
        ("TimeLimit", "9" * 5000),
        ("TimeLimit", "999999999-00:00:00"),
        ("StartTime", "soon"),
        ("EndTime", "9" * 400),
    ],
)
def test_an_odd_value_is_none(field: str, value: str) -> None:
    """Where nothing is concluded from it, the rest of the record counts."""
    job = {field: value, "State": "COMPLETED"}
    (record,) = squeue.parse(squeue_text(job)).records
    assert record.state is JobState.COMPLETED
    assert record.restarts == 0


@pytest.mark.parametrize(
    "parse", [sinfo.parse_version, sinfo.parse_partitions, sinfo.parse_nodes, scontrol.is_up]
)
@pytest.mark.parametrize(
    "text",
    ["", "\n", "Welcome!\n", "slurm\n", f"c1{FIELD}idle{RECORD}\n"],
    ids=["nothing", "newline", "banner", "word", "torn"],
)
def test_a_single_answer_that_is_none_is_an_error(
    parse: Callable[[str], object], text: str
) -> None:
    """Not an empty cluster."""
    with pytest.raises(SchedulerUnreadableError) as caught:
        parse(text)
    assert caught.value.retryable
    assert isinstance(caught.value, SchedulerUnavailableError)


@pytest.mark.parametrize("file", ["sinfo-partitions.txt", "sinfo-nodes.txt"])
def test_half_of_a_cluster_is_an_error(file: str) -> None:
    """Partitions that were cut off are not gone."""
    parse = sinfo.parse_partitions if "partitions" in file else sinfo.parse_nodes
    text = read(file)
    assert parse(f"{BANNER}\n{text}{BANNER}\n") == parse(text)
    for end in range(len(text) - 1):
        if text[end - 1 : end] == "\n" and end > text.index("\n") + 1:
            continue  # between two records, where no reader can tell
        try:
            found = parse(text[:end])
        except SchedulerUnreadableError:
            continue
        assert not found, text[:end]  # after the header


@pytest.mark.parametrize(
    "odd",
    [
        "18 torn",
        f"18{FIELD}torn",
        FIELD.join(["Welcome"] * 11),
        FIELD.join(["17_[3-9]", *[""] * 10]),
    ],
    ids=["word", "torn", "banner", "range"],
)
def test_steps_after_an_odd_row_are_nobodys(odd: str) -> None:
    """The figures of one job are not another's."""
    words = "JobID Elapsed CPUs Time Memory RSS Nodes TRES Max Tot Energy"
    header = words.split(" ")
    job = ["17", "10", "1", "00:05", "1G", "", "1", "", "", "", ""]
    step = ["18.batch", "10", "1", "00:05", "", "900K", "1", "", "", "", ""]
    lines = [FIELD.join(header), FIELD.join(job), odd, FIELD.join(step)]
    used = usage.parse("\n".join(lines) + "\n")
    assert all(each.max_rss_bytes is None for each in used.values())


def test_usage_that_is_none_is_an_error() -> None:
    """Nothing was printed, not even a header."""
    with pytest.raises(SchedulerUnreadableError):
        usage.parse("")


def test_each_text_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """And of very many only the last are remembered."""
    caplog.set_level(logging.INFO)
    said = SaidOnce()
    for _ in range(3):
        said.noise("squeue", ["Welcome!"])
        said.unreadable("squeue", ["17 |"])
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    said.noise("squeue", map(str, range(10_000)))
    assert len(said._said) < 1000


def test_what_is_kept_is_short() -> None:
    """However much was printed."""
    kept = shortened(f"{number} {'x' * 10_000}" for number in range(10_000))
    assert sum(map(len, kept)) < 10_000
    assert kept[-1] == "(and 9980 more)"
    assert shortened(["a\x1b[31mb\n"]) == ("a [31mb",)


KEY = "run-0123456789abcdef0123"


@pytest.mark.parametrize(
    ("marks", "called"),
    [
        ({"comment": KEY}, True),
        ({"name": f"hpc-agent:{KEY}"}, True),
        ({"working_directory": f"/work/jobs/{KEY}"}, True),
        ({"working_directory": f"/work/jobs/{KEY}/"}, True),
        ({"script": f"/work/jobs/{KEY}/job.sh"}, True),
        ({"script": f"/work/jobs/{KEY}/job.sh", "working_directory": "/home/u"}, True),
        ({"script": "/home/u/mine.sh", "working_directory": f"/work/jobs/{KEY}"}, False),
        ({"script": f"/work/{KEY}", "name": KEY, "working_directory": f"/{KEY}/x"}, False),
        ({}, False),
    ],
)
def test_a_job_is_called_by_any_of_its_marks(marks: dict[str, str], called: bool) -> None:
    """What a run submits itself has its working directory, and is another job."""
    record = JobRecord(job_id="17", state=JobState.RUNNING, source="squeue", **marks)  # type: ignore[arg-type]
    assert is_called(record, KEY) is called
    assert not is_called(record, "")


def test_a_search_without_accounting_tells_what_it_has_found() -> None:
    """Only when it has found nothing has it found nothing out."""
    away = SchedulerUnavailableError("away")
    job = JobRecord(job_id="17", state=JobState.RUNNING, source="squeue")
    look = found_in(Look((job,)), away)
    assert (look.records, look.is_complete) == ((job,), False)
    with pytest.raises(SchedulerUnavailableError):
        found_in(Look(), away)
    ended = JobRecord(job_id="17", state=JobState.FAILED, source="sacct")
    assert found_in(Look((job,)), Look((ended,))).records == (job,)


ODD = st.sampled_from(
    [
        FIELD,
        RECORD,
        "\n",
        "17",
        "_",
        "[3-5]",
        "RUNNING",
        "\x00",
        "\ufffd",
        "N/A",
        "²",
        "9" * 30,
        ":",
    ]
)
SPOILT = st.lists(ODD | st.text(max_size=5), max_size=60).map("".join)


@settings(max_examples=200, deadline=None)
@given(SPOILT)
def test_no_text_breaks_a_parser(text: str) -> None:
    """No error but the declared one, and no record with a broken id."""
    check_looks(squeue.parse(text), sacct.parse(text))
    for parse in (
        sinfo.parse_version,
        sinfo.parse_partitions,
        sinfo.parse_nodes,
        scontrol.parse_max_array_size,
        scontrol.parse_cli_filters,
        scontrol.is_up,
        queue_position.are_hidden,
        usage.parse,
        lambda text: queue_position.parse(text, {"17"}),
    ):
        try:
            parse(text)
        except SchedulerUnreadableError:
            continue
    scontrol.parse_job(text)
    job_id = sbatch.parse(text)
    assert job_id is None or job_id.isdigit()
    sbatch.merged_exclude(text, ["c1"])
    parse_exit_code(text)
    parse_size(text)
    parse_time(text)
    duration_or_none(text)
    assert all(parse_job_id(each) for each in parse_job_ids(text))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_cut_and_no_insertion_breaks_a_record(data: st.DataObject) -> None:
    """Whatever is cut out of two good answers or put into them."""
    texts = []
    usual: dict[str, str] = {}
    jobs = (usual, {"JobArrayID": "18_3", "State": "PENDING"})
    rows = (usual, {"JobID": "18_3", "JobIDRaw": "19"})
    for whole in (squeue_text(*jobs), sacct_text(*rows)):
        first = data.draw(st.integers(0, len(whole)))
        second = data.draw(st.integers(first, min(len(whole), first + 40)))
        texts.append(f"{whole[:first]}{data.draw(SPOILT)}{whole[second:]}")
    check_looks(squeue.parse(texts[0]), sacct.parse(texts[1]))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000))
def test_an_answer_that_was_cut_is_not_complete(place: int) -> None:
    """But for a cut between two records, which nothing tells."""
    for whole, parse in (
        (squeue_text({}, {"JobArrayID": "18"}), squeue.parse),
        (sacct_text({}, {"JobID": "18", "JobIDRaw": "18"}), sacct.parse),
    ):
        cut = whole[: place % len(whole)]
        assert parse(cut).is_complete is cut.endswith("\n"), cut


def check_looks(*looks: Look) -> None:
    """Every record has an id that is one."""
    for look in looks:
        assert all(parse_job_id(job.job_id) == job.job_id for job in look.records)
        assert all(isinstance(job.state, JobState) for job in look.records)


@pytest.mark.parametrize(("seconds", "is_complete"), [(60, False), (300, True)])
def test_record_that_stays_nobodys_is_noise(seconds: int, is_complete: bool) -> None:
    """A controller that lost its state never tells whose it is: other jobs do not wait for that."""
    strange = {**NOBODYS, "JobID": "18", "JobIDRaw": "18"}
    look = sacct.parse(sacct_text({}, strange), now=NOBODYS_START + timedelta(seconds=seconds))
    assert [job.job_id for job in look.records] == ["17"]
    assert look.is_complete is is_complete
