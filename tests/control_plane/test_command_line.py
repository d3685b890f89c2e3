"""``control-plane deploy``, ``token`` and ``status`` as an admin types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dagster_cloud_cli.core.workspace import CodeLocationDeployData
from dagster_shared.serdes import deserialize_value
from typer.testing import CliRunner, Result

from hpc_agent.cli.control_plane import app
from hpc_agent.control_plane.home import SOCKET_PATH_LIMIT, Home, prepare_home, prepare_socket
from hpc_agent.control_plane.store.database import Database
from hpc_agent.control_plane.store.locations import Locations
from hpc_agent.control_plane.store.tokens import TokenKind, Tokens, digest
from hpc_agent.control_plane.workspace import write_workspace
from hpc_agent.errors import ConfigError


def invoke(home: Home, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--home", str(home.root)])


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_deploy_stores_the_locations_of_the_file(
    home: Home, database: Database, tmp_path: Path
) -> None:
    """All that the Dagster+ file format says of a location reaches the agent."""
    file = write(
        tmp_path / "dagster_cloud.yaml",
        """
defaults:
  working_directory: /project
locations:
  - location_name: one
    code_source: {module_name: one.defs}
    executable_path: /venv/bin/python
    attribute: defs
    agent_queue: gpu
    image: one.sif
  - location_name: two
    code_source: {autoload_defs_module_name: two}
""",
    )

    result = invoke(home, "deploy", file)

    assert result.exit_code == 0, result.output
    one, two = Locations(database).all()
    assert one.agent_queue == "gpu"
    assert deserialize_value(one.deploy_data, CodeLocationDeployData) == CodeLocationDeployData(
        module_name="one.defs", executable_path="/venv/bin/python", attribute="defs",
        agent_queue="gpu", image="one.sif", working_directory="/project",
    )  # fmt: skip
    assert two.name == "two"


def test_relative_working_directory_counts_from_the_file(
    home: Home, database: Database, tmp_path: Path
) -> None:
    """Where the command is run says nothing about where the code is."""
    file = write(
        tmp_path / "dagster_cloud.yaml",
        """
locations:
  - {location_name: one, code_source: {module_name: defs}, working_directory: src}
""",
    )
    assert invoke(home, "deploy", file).exit_code == 0
    (one,) = Locations(database).all()
    deployed = deserialize_value(one.deploy_data, CodeLocationDeployData)
    assert deployed.working_directory == str(tmp_path / "src")


def test_deploying_again_is_a_redeploy(home: Home, database: Database, tmp_path: Path) -> None:
    """An unchanged location gets a new timestamp, and with it a new code server."""
    file = write(
        tmp_path / "f.yaml", "locations: [{location_name: a, code_source: {module_name: a}}]"
    )
    invoke(home, "deploy", file)
    locations = Locations(database)
    first = locations.all()[0]
    locations.record_upload("prod", "a", manifest="{}", error=None, uploaded_for=first.updated_at)
    assert not locations.all()[0].is_outdated

    invoke(home, "deploy", file)

    assert locations.all()[0].is_outdated
    assert locations.all()[0].manifest == "{}"


def test_prune_removes_what_the_file_does_not_list(
    home: Home, database: Database, tmp_path: Path
) -> None:
    """Other locations stay unless asked."""
    for name in "ab":
        source = f"locations: [{{location_name: {name}, code_source: {{module_name: m}}}}]"
        write(tmp_path / f"{name}.yaml", source)
        invoke(home, "deploy", str(tmp_path / f"{name}.yaml"))
    assert len(Locations(database).all()) == 2

    invoke(home, "deploy", str(tmp_path / "a.yaml"), "--prune")

    assert [location.name for location in Locations(database).all()] == ["a"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("locations: [", "is not YAML"),
        ("[]", "valid dictionary"),
        ("locations: []", "lists no locations"),
        ("locations: [{code_source: {module_name: a}}]", "location_name"),
        ("locations: [{location_name: a}]", "has no code_source"),
        ("locations: [{location_name: a, code_source: {}}]", "must be specified"),
        ("locations: [{location_name: a, code_source: {module_name: a}, cpu: 3}]", "cpu"),
        (
            "locations: [{location_name: a, code_source: {module_nam: a}}]",
            "module_nam: there is no such key; did you mean module_name?",
        ),
        (
            "locations: [{location_name: a, code_source: {module_name: a, python_file: b}}]",
            "only one of",
        ),
    ],
)
def test_bad_file_is_explained_in_one_line(
    home: Home, database: Database, tmp_path: Path, text: str, says: str
) -> None:
    """The message names the file and the problem, the exit code is 2, and nothing is deployed."""
    file = write(tmp_path / "bad.yaml", text)

    result = invoke(home, "deploy", file)

    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {file}")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert Locations(database).all() == []


def test_settings_for_other_platforms_are_told(home: Home, tmp_path: Path) -> None:
    """They are deployed as they are, and do nothing here."""
    context = "container_context: {k8s: {}}"
    text = f"locations: [{{location_name: a, code_source: {{module_name: a}}, {context}}}]"
    result = invoke(home, "deploy", write(tmp_path / "a.yaml", text))
    assert result.exit_code == 0
    assert "warning: a: container_context is for agents of other platforms" in result.stderr


def test_missing_file_is_explained(home: Home, tmp_path: Path) -> None:
    result = invoke(home, "deploy", str(tmp_path / "none.yaml"))

    assert result.exit_code == 2
    assert "No such file" in result.stderr


def test_deployments_have_locations_of_their_own(
    home: Home, database: Database, tmp_path: Path
) -> None:
    """The same file goes into several deployments; deleting one leaves the others alone."""
    file = write(
        tmp_path / "f.yaml", "locations: [{location_name: a, code_source: {module_name: a}}]"
    )
    refused = invoke(home, "deploy", file, "--deployment", "staging")
    assert refused.exit_code == 2
    assert "deployment create staging" in refused.stderr

    assert invoke(home, "deployment", "create", "staging").exit_code == 0
    assert invoke(home, "deploy", file, "--deployment", "staging").exit_code == 0
    assert invoke(home, "deploy", file).exit_code == 0

    assert invoke(home, "deployment", "list").stdout.splitlines() == ["prod  full", "staging  full"]
    names = [location.face_name for location in Locations(database).all()]
    assert names == ["a", "a@staging"]

    assert invoke(home, "deployment", "delete", "staging").exit_code == 0
    assert [location.face_name for location in Locations(database).all()] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("create", "prod"), "exists already"),
        (("create", "a@b"), "cannot name a deployment"),
        (("create", "x" * 65), "cannot name a deployment"),
        (("delete", "prod"), "cannot be deleted"),
        (("delete", "nowhere"), "there is no deployment"),
    ],
)
def test_wrong_deployment_is_explained(home: Home, arguments: tuple[str, ...], says: str) -> None:
    """One line, exit code 2."""
    result = invoke(home, "deployment", *arguments)

    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_location_name_cannot_name_a_deployment(home: Home, tmp_path: Path) -> None:
    """``a@staging`` in the UI is location a of deployment staging, and nothing else."""
    file = write(
        tmp_path / "f.yaml",
        "locations: [{location_name: a@staging, code_source: {module_name: a}}]",
    )

    result = invoke(home, "deploy", file)

    assert result.exit_code == 2
    assert "must not contain @" in result.stderr


def test_home_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --home and DAGSTER_HOME, the command says what to do."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)

    result = CliRunner().invoke(app, ["status"])

    assert result.exit_code == 2
    assert "--home" in result.stderr


def test_home_of_another_dagster_is_not_overwritten(tmp_path: Path) -> None:
    """Its workspace would be lost; one that we wrote ourselves is taken again."""
    workspace = tmp_path / "home" / "workspace.yaml"
    workspace.parent.mkdir(mode=0o700)
    workspace.write_text("load_from: []\n")
    with pytest.raises(ConfigError, match="the home of another Dagster"):
        prepare_home(Home(workspace.parent))
    assert workspace.read_text() == "load_from: []\n"
    workspace.unlink()
    write_workspace(workspace, {})
    prepare_home(Home(workspace.parent))


def test_token_works_until_revoked(home: Home, database: Database) -> None:
    """A token is found by its digest; its secret is nowhere in the database."""
    created = json.loads(invoke(home, "token", "create", "--json").stdout)
    tokens = Tokens(database)
    found = tokens.find(digest(created["token"]))
    assert found is not None
    assert found.kind is TokenKind.AGENT
    secret = created["token"].split(":")[2]
    assert secret.encode() not in (home.root / "gateway.db-wal").read_bytes()

    assert invoke(home, "token", "revoke", created["id"]).exit_code == 0

    assert tokens.find(digest(created["token"])) is None
    assert invoke(home, "token", "revoke", created["id"]).exit_code == 2
    assert "revoked" in invoke(home, "token", "list").stdout


@pytest.mark.parametrize("role", [None, "viewer", "operator", "admin"])
def test_user_token_has_a_role(home: Home, database: Database, role: str | None) -> None:
    """Without one it is an admin's, as it was before there were roles."""
    options = ["--role", role] if role else []
    created = invoke(home, "token", "create", "--kind", "user", *options).stdout.strip()

    found = Tokens(database).find(digest(created))

    assert found is not None
    assert found.role == (role or "admin")
    assert f"  user  {role or 'admin'}  " in invoke(home, "token", "list").stdout


def test_agent_token_has_no_role(home: Home) -> None:
    refused = invoke(home, "token", "create", "--role", "viewer")

    assert refused.exit_code == 2
    assert "--kind user" in refused.stderr


def test_stock_client_can_read_our_tokens(database: Database) -> None:
    """dagster_cloud takes tokens apart to find an organization: ours have one, and no region."""
    from dagster_cloud.auth.constants import decode_agent_token

    _, secret = Tokens(database).create("x", TokenKind.AGENT)

    assert decode_agent_token(secret) == ("self-hosted", None)


def test_socket_path_stays_short(tmp_path: Path) -> None:
    """A unix socket's path has room for about a hundred bytes, however deep the home lies."""
    deep = Home(tmp_path / ("x" * 200))

    path = deep.socket("a location with a name of its own")
    prepare_socket(path)

    assert len(str(path)) < SOCKET_PATH_LIMIT
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path == deep.socket("a location with a name of its own")
    path.parent.rmdir()


def test_status_tells_what_is_there(home: Home, tmp_path: Path) -> None:
    """Locations and their state are shown; a file left by a killed process is not believed."""
    file = write(
        tmp_path / "f.yaml", "locations: [{location_name: a, code_source: {module_name: a}}]"
    )
    invoke(home, "deploy", file)
    stale = {"api": "x", "ui": "x", "ui_auth": "off", "ca": None, "pid": 2**22 + 1}
    home.running_json.write_text(json.dumps(stale))

    result = invoke(home, "status")

    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["not running", "location prod/a: not loaded"]
