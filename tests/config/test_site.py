"""The site's profile under agent.yaml, and where each key comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hpc_agent.config.load import Loaded, load_config, load_layers
from hpc_agent.errors import ConfigError, UnsafePathError
from hpc_agent.inspection.configuration import overruled_notes, settings_of
from hpc_agent.jobs.rendering import PACKAGED

OWN = {"control_plane": {"url": "https://cp.example"}, "work_dir": "/shared/work"}


def loaded(directory: Path, site: Any, own: Any = None, **environ: str) -> Loaded:
    """Return what a user's agent.yaml comes to under a site's profile."""
    profile, file = directory / "site.yaml", directory / "agent.yaml"
    profile.write_text(yaml.safe_dump(site))
    profile.chmod(0o644)
    file.write_text(yaml.safe_dump(OWN | (own or {})))
    return load_layers(file, {"HPC_AGENT_SITE": str(profile), **environ})


def sources(found: Loaded, directory: Path) -> dict[str, str]:
    """Return the source of each key that is set, by the name of its file."""
    return {each.key: Path(each.source).name for each in settings_of(found, with_defaults=False)}


def test_site_is_under_the_users_own_file(tmp_path: Path) -> None:
    """Sections are merged key by key, and the nearest source counts."""
    site = {"options": {"partition": "batch", "time": "1:00"}, "relay": {"port": 4000}}
    found = loaded(
        tmp_path, site, {"options": {"partition": "gpu"}}, HPC_AGENT__RELAY__BIND="127.0.0.1"
    )
    assert found.config.options == {"partition": "gpu", "time": "1:00"}
    assert found.config.relay.port == 4000
    assert sources(found, tmp_path) == {
        "control_plane.url": "agent.yaml",
        "work_dir": "agent.yaml",
        "options.partition": "agent.yaml",
        "options.time": "site.yaml",
        "relay.port": "site.yaml",
        "relay.bind": "environment",
    }


def test_example_is_a_profile(tmp_path: Path) -> None:
    """What `config example --site` prints can be used as it is."""
    found = loaded(tmp_path, yaml.safe_load((PACKAGED / "site.example.yaml").read_text()))
    assert found.config.scheduler.commands_burst == 10
    assert ("policy",) in found.layers.enforced


def test_user_cannot_override_what_the_site_enforces(tmp_path: Path) -> None:
    """A key with all that is below it; and is told that his own value does not count."""
    site = {
        "policy": {"partitions": ["batch"]},
        "scheduler": {"commands_per_second": 1},
        "enforce": ["policy", "scheduler.commands_per_second", "scheduler.commands_burst"],
    }
    own = {
        "policy": {"accounts": ["other"]},
        "scheduler": {"commands_per_second": 50, "poll_seconds": 5},
    }
    found = loaded(tmp_path, site, own, HPC_AGENT__SCHEDULER__COMMANDS_BURST="500")
    assert found.config.policy.partitions == ["batch"]
    assert found.config.policy.accounts is None
    assert found.config.scheduler.commands_per_second == 1
    assert found.config.scheduler.commands_burst == 30
    assert found.config.scheduler.poll_seconds == 5
    assert [note.split(" ")[0] for note in overruled_notes(found)] == [
        "policy",
        "scheduler.commands_per_second",
        "scheduler.commands_burst",
    ]


@pytest.mark.parametrize(
    ("site", "fault"),
    [
        ({"enforce": "policy"}, "site.yaml: enforce: must be a list"),
        (
            {"enforce": ["policcy"]},
            "site.yaml: enforce: policcy: unknown key; did",
        ),
        ({"relay": {"prot": 1}}, "site.yaml: relay.prot: unknown key; did you mean port?"),
        ([1], "site.yaml: must be a mapping"),
    ],
)
def test_mistake_of_the_site_names_its_file(tmp_path: Path, site: Any, fault: str) -> None:
    """The user cannot mend it, and should know whose it is."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, site)
    assert fault in str(caught.value)


def test_profile_that_others_can_change_is_not_read(tmp_path: Path) -> None:
    """It says what the agent runs."""
    profile = tmp_path / "site.yaml"
    profile.write_text("{}")
    profile.chmod(0o666)
    with pytest.raises(UnsafePathError, match="chmod go-w"):
        load_config(None, {"HPC_AGENT_SITE": str(profile)} | _variables())
    profile.chmod(0o644)
    tmp_path.chmod(0o777)
    with pytest.raises(UnsafePathError, match="others can replace what is in"):
        load_config(None, {"HPC_AGENT_SITE": str(profile)} | _variables())


def test_secrets_are_hidden(tmp_path: Path) -> None:
    """Whoever shows his configuration to others shows no password."""
    own = {
        "control_plane": {
            "url": "https://cp.example",
            "proxy": "http://me:geheim@proxy:3128",
            "token_command": ["echo", "geheim"],
        },
        "environment": {"variables": {"API_TOKEN": "geheim", "LANG": "C"}},
    }
    shown = {each.key: each.value for each in settings_of(loaded(tmp_path, {}, own))}
    assert "geheim" not in str(shown)
    assert shown["control_plane.proxy"] == "http://[hidden]@proxy:3128"
    assert shown["control_plane.token_command"] == ["echo", "[hidden]"]
    assert shown["environment.variables.LANG"] == "C"


def test_secret_in_a_mistake_is_hidden(tmp_path: Path) -> None:
    """Errors end up in logs and tickets."""
    with pytest.raises(ConfigError, match="must start with") as caught:
        loaded(tmp_path, {}, {"control_plane": {"url": "http://me:geheim@cp.example"}})
    assert "geheim" not in str(caught.value)


def _variables() -> dict[str, str]:
    return {"HPC_AGENT__CONTROL_PLANE__URL": "https://x", "HPC_AGENT__WORK_DIR": "/w"}
