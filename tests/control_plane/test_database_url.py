"""Where the tables are: option, environment, dagster.yaml; and what a password never gets into."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hpc_agent.cli.control_plane import app
from hpc_agent.control_plane.database_url import VARIABLE, url_in
from hpc_agent.control_plane.home import Home, resolve_home
from hpc_agent.control_plane.store.database import Database
from hpc_agent.errors import ConfigError, StoreError
from tests.postgres import PostgresServer

URL = "postgresql://me@db.example.org:5433/dagster"
SECRET_URL = "postgresql://me:hunter2@db.example.org:5433/dagster"


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def storage_of(home: Home) -> object:
    return yaml.safe_load(home.dagster_yaml.read_text()).get("storage")


def test_default_is_sqlite_in_the_home(tmp_path: Path) -> None:
    home = resolve_home(tmp_path / "home")

    assert home.database_url == f"sqlite:///{tmp_path}/home/gateway.db"
    assert storage_of(home) is None


def test_option_goes_into_a_fresh_dagster_yaml(tmp_path: Path) -> None:
    """Dagster's own tables and ours are in one place, also for later commands."""
    assert resolve_home(tmp_path / "home", URL).database_url == URL

    assert resolve_home(tmp_path / "home").database_url == URL


def test_url_of_the_environment_stays_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its password is in no file: dagster.yaml names the variable."""
    monkeypatch.setenv(VARIABLE, SECRET_URL)

    home = resolve_home(tmp_path / "home")

    assert home.database_url == SECRET_URL
    assert storage_of(home) == {"postgres": {"postgres_url": {"env": VARIABLE}}}
    assert "hunter2" not in "".join(
        path.read_text() for path in home.root.rglob("*") if path.is_file()
    )


def test_existing_dagster_yaml_is_left_alone(tmp_path: Path) -> None:
    """An instance that is there already says itself where its tables are."""
    root = tmp_path / "home"
    root.mkdir()
    text = yaml.safe_dump({"storage": {"postgres": {"postgres_url": URL}}})
    (root / "dagster.yaml").write_text(text)

    assert resolve_home(root).database_url == URL
    assert (root / "dagster.yaml").read_text() == text


def test_parts_of_a_url_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``postgres_db`` with a hostile password from the environment."""
    monkeypatch.setenv("PG_PASSWORD", "p@ss/w:rd")
    parts = {
        "username": "me", "password": {"env": "PG_PASSWORD"}, "hostname": "db", "db_name": "d",
        "params": {"sslmode": "require"},
    }  # fmt: skip
    file = tmp_path / "dagster.yaml"
    file.write_text(yaml.safe_dump({"storage": {"postgres": {"postgres_db": parts}}}))

    assert url_in(file) == "postgresql://me:p%40ss%2Fw%3Ard@db:5432/d?sslmode=require"


def test_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    """A later command in another shell says what it lacks."""
    file = tmp_path / "dagster.yaml"
    file.write_text("storage: {postgres: {postgres_url: {env: HPC_TEST_NOT_SET}}}")

    with pytest.raises(ConfigError, match="HPC_TEST_NOT_SET"):
        url_in(file)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (SECRET_URL, "holds a password"),
        ("not a url", "is not a URL"),
        ("mysql://me@db/d", "uses PostgreSQL"),
    ],
)
def test_unusable_option_is_explained(tmp_path: Path, url: str, says: str) -> None:
    """Exit code 2, one line, and the password is not repeated."""
    arguments = ["start", "--home", str(tmp_path / "home"), "--database-url", url]

    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "hunter2" not in result.stderr
    assert not (tmp_path / "home").exists()


def test_database_that_does_not_answer_is_named_without_its_password() -> None:
    """An admin sees which database it is."""
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1/d") as caught:
        Database("postgresql://me:hunter2@127.0.0.1:1/d")

    assert "hunter2" not in str(caught.value)


def test_tables_are_in_a_schema_of_their_own(postgres: PostgresServer) -> None:
    """Dagster's tables, with names like ``runs`` and ``snapshots``, are never met."""
    url = postgres.create_database()
    database = Database(url)

    with database.read() as connection:
        schemas = connection.exec_driver_sql(
            "SELECT DISTINCT table_schema FROM information_schema.tables "
            "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        ).scalars()
        assert list(schemas) == ["hpc_agent_gateway"]

    database.close()
    postgres.drop_database(url)
