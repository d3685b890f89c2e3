"""Where uploads may go: the control plane itself and storage that is known, nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_agent.config import parse_config
from hpc_agent.config.connections import STORAGE_OF_DAGSTER_PLUS
from hpc_agent.errors import ConfigError, ControlPlaneRefusedError
from hpc_agent.outgoing.storage_addresses import StorageAddresses

PLANE = "https://acme.agent.dagster.cloud"
DAGSTER_PLUS = StorageAddresses(PLANE, STORAGE_OF_DAGSTER_PLUS)


@pytest.mark.parametrize(
    "address",
    [
        f"{PLANE}/uploads/x.y",
        "https://ACME.agent.dagster.cloud:443/uploads/x",
        "https://cloud-prod-object-snapshots.s3.amazonaws.com/a?X-Amz-Signature=1",
        "https://cloud-prod-eu-compute-logs.s3.eu-north-1.amazonaws.com/a",
        "https://bucket.with.dots.s3.us-west-2.amazonaws.com/a",
    ],
)
def test_storage_of_dagster_plus_is_known(address: str) -> None:
    """As its page on addresses lists it."""
    assert str(DAGSTER_PLUS.checked(address)).lower() == address.lower().replace(":443", "")


@pytest.mark.parametrize(
    "address",
    [
        "http://acme.agent.dagster.cloud/uploads/x",
        "https://acme.agent.dagster.cloud:8443/uploads/x",
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/",
        "http://localhost:6817/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://login1.cluster/",
        "http://a.s3.amazonaws.com/",
        "https://a.s3.amazonaws.com:8443/",
        "https://s3.amazonaws.com.evil.example/",
        "https://a.s3.amazonaws.com.evil.example/",
        "https://a.s3.x.y.amazonaws.com/",
        "https://evil.example/a.s3.amazonaws.com",
        "https://a.s3.amazonaws.com@evil.example/",
        "https://evil.example\\@a.s3.amazonaws.com/",
        "https://user:secret@a.s3.amazonaws.com/",
        "https://evil.example#.s3.amazonaws.com/",
        "https://evil.example?.s3.amazonaws.com",
        "https://a.s3.amazonaws.com:99999/",
        "https://a\n.s3.amazonaws.com/",
        "//a.s3.amazonaws.com/",
        "file:///etc/passwd",
        "unix:///run/slurm",
        "/uploads/x",
        "https://",
        "https://" + "a" * 100_000,
        "",
        "\ud800",
        None,
        17,
        ["https://a.s3.amazonaws.com"],
    ],
)
def test_other_addresses_are_refused(address: object) -> None:
    """In words that name the key to set."""
    with pytest.raises(ControlPlaneRefusedError, match=r"control_plane\.storage_hosts") as raised:
        DAGSTER_PLUS.checked(address)
    assert len(str(raised.value)) < 1000


def test_plain_http_is_for_a_control_plane_on_this_machine_alone() -> None:
    """And then for storage that is named, and here as well."""
    here = StorageAddresses("http://127.0.0.1:8443", ["localhost:9000", "minio:9000"])
    assert here.checked("http://127.0.0.1:8443/uploads/x")
    assert here.checked("http://localhost:9000/bucket/x")
    assert here.checked("https://minio:9000/bucket/x")
    there = StorageAddresses(PLANE, ["minio:9000", "localhost:9000"])
    for address in ("http://minio:9000/", "http://localhost:9000/"):
        with pytest.raises(ControlPlaneRefusedError):
            there.checked(address)
    for address in ("http://127.0.0.1:8444/", "http://minio:9000/", "http://localhost/"):
        with pytest.raises(ControlPlaneRefusedError):
            here.checked(address)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.builds("https://{}".format, st.text(max_size=60))))
def test_nothing_but_a_refusal_comes_of_any_text(address: str) -> None:
    """Whatever a control plane says."""
    try:
        url = DAGSTER_PLUS.checked(address)
    except ControlPlaneRefusedError:
        return
    assert url.scheme == "https"
    assert url.host.endswith((".amazonaws.com", "acme.agent.dagster.cloud"))


@pytest.mark.parametrize("host", ["", "https://x", "a b", "x/", "x:", "x:port", "*:", ".x"])
def test_what_is_no_host_is_a_mistake_in_agent_yaml(host: str) -> None:
    """Said before anything is sent."""
    plane = {"url": PLANE, "storage_hosts": [host]}
    with pytest.raises(ConfigError, match="storage_hosts"):
        parse_config({"control_plane": plane, "work_dir": "/w"}, source="test")


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1@evil.example",
        "https://user:secret@plane.example",
        "https://",
        "ftp://127.0.0.1",
    ],
)
def test_token_is_sent_unencrypted_to_this_machine_alone(url: str) -> None:
    """By the host of the address, not by how it begins."""
    with pytest.raises(ConfigError, match=r"control_plane\.url"):
        parse_config({"control_plane": {"url": url}, "work_dir": "/w"}, source="test")
