"""Environments: what a rendered script does when bash runs it, and how user code is started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpc_agent.code_servers.server_plan import plan_server
from hpc_agent.config import AgentConfig, Environment, parse_config
from hpc_agent.dagster_plus.requests import RunToLaunch
from hpc_agent.errors import ConfigError
from hpc_agent.jobs.directory import NodePath
from hpc_agent.jobs.preparation import script_values
from hpc_agent.runs.worker_plan import plan_run
from tests.jobs.scripts import done, program, running, script_of, shown

LIMIT_SECONDS = 30.0
ROOT = Path(__file__).parents[2]
ORIGIN = {"executable_path": "/code/bin/python", "code_pointer": {"working_directory": "/code"}}
RUN = RunToLaunch(
    run_id="r-1",
    job_name="j",
    location="here",
    tags={},
    code_origin={"repository_origin": ORIGIN},
)


def config(**changes: Any) -> AgentConfig:
    content = {"control_plane": {"url": "https://x"}, "work_dir": "/work"}
    return parse_config(content | changes, source="test")


def test_python_environments_come_first_on_the_path(tmp_path: Path) -> None:
    """And say what they are, as their activation scripts do."""
    path, venv = shown({"venv": "/e n'v"}, tmp_path, "PATH", "VIRTUAL_ENV")
    assert (path.split(":")[0], venv) == ("/e n'v/bin", "/e n'v")
    path, prefix = shown({"uv": "/project"}, tmp_path, "PATH", "VIRTUAL_ENV")
    assert (path.split(":")[0], prefix) == ("/project/.venv/bin", "/project/.venv")


def test_conda_environment_is_activated_without_conda(tmp_path: Path) -> None:
    """Its hooks run, though nothing of conda is on the node."""
    hooks = tmp_path / "envs" / "mine" / "etc" / "conda" / "activate.d"
    hooks.mkdir(parents=True)
    (hooks / "gdal.sh").write_text('export GDAL_DATA="$CONDA_PREFIX/share" UNSET="$NOT_SET"\n')
    names = ("PATH", "CONDA_PREFIX", "GDAL_DATA")
    prefix = f"{tmp_path}/envs/mine"
    path, conda, gdal = shown({"conda": {"root": str(tmp_path), "name": "mine"}}, tmp_path, *names)
    assert (path.split(":")[0], conda, gdal) == (f"{prefix}/bin", prefix, f"{prefix}/share")


def test_env_file_is_read_and_nothing_in_it_runs(tmp_path: Path) -> None:
    """Spaces, quotes, a last line without an end, and what a shell would expand."""
    file = tmp_path / "a b.env"
    file.write_text(
        "# comment\n\nPLAIN=a b\nexport QUOTED=\"x y\"\nSINGLE='$(id)'\r\n"
        "HOSTILE=$(touch pwned)`id`;#\nEQUALS=a=b\nLAST=end"
    )
    names = ("PLAIN", "QUOTED", "SINGLE", "HOSTILE", "EQUALS", "LAST")
    assert shown({"env_file": str(file)}, tmp_path, *names) == [
        "a b", "x y", "$(id)", "$(touch pwned)`id`;#", "a=b", "end",
    ]  # fmt: skip
    assert not (tmp_path / "pwned").exists()


INITS = [
    Path("/usr/share/lmod/lmod/init/bash"),  # Lmod
    Path("/usr/share/modules/init/bash"),  # Environment Modules; Debian has one or the other
]


@pytest.mark.parametrize("init", INITS, ids=["lmod", "environment-modules"])
def test_modulefiles_need_not_be_written_for_strict_shells(tmp_path: Path, init: Path) -> None:
    """A variable that is not set, a command that fails within: as on the login node."""
    if not init.exists():
        pytest.skip(
            f"{init} is not here: install lmod or environment-modules, which exclude others"
        )
    (tmp_path / "hook.sh").write_text('false\nFOUND="$FOUND, hooked $NOT_SET"\n')
    (tmp_path / "gcc").mkdir()
    (tmp_path / "gcc" / "12").write_text(
        f"#%Module1.0\nsetenv FOUND loaded\nsource-sh bash {tmp_path}/hook.sh\n"
        if init is INITS[1]
        else '#%Module1.0\nsetenv FOUND "loaded"\n'
    )
    environment = {
        "variables": {"MODULEPATH": str(tmp_path)},
        "modules": ["gcc/12"],
        "purge_modules": True,
        "setup": [f". {tmp_path}/hook.sh", "export FOUND"],
    }
    result = done_with(environment, tmp_path, init)
    assert result.returncode == 0, result.stderr
    assert "reached with <loaded" in result.stdout

    missing = done_with({**environment, "modules": ["gcc/99"]}, tmp_path, init)
    assert missing.returncode != 0
    assert "gcc/99" in missing.stderr
    assert "reached" not in missing.stdout


def done_with(
    environment: dict[str, Any], directory: Path, init: Path
) -> subprocess.CompletedProcess[str]:
    """Run a job's script in a shell that has ``module``, as /etc/profile of a site defines it."""
    text = '#!/bin/sh\necho "reached with <$FOUND>"\n'
    script = script_of(Environment.model_validate(environment), program(directory, text), directory)
    return subprocess.run(
        ["bash", "-c", f". {init}; . {script}"], capture_output=True, text=True, check=False, env={}
    )


def test_set_up_lines_are_those_of_any_script(tmp_path: Path) -> None:
    """What fails goes on, unless it says that it ends the job."""
    lines = ["false", "FOUND=$NOT_SET.", "export FOUND"]
    assert done({"setup": lines}, tmp_path).stdout == "reached with <.>\n"
    ended = done({"setup": ["(exit 3) || exit"]}, tmp_path)
    assert (ended.returncode, ended.stdout) == (3, "")


def test_file_of_variables_that_is_missing_ends_the_job(tmp_path: Path) -> None:
    """And so does a line of it that names none."""
    assert done({"env_file": str(tmp_path / "none")}, tmp_path).returncode == 1
    file = tmp_path / "bad.env"
    file.write_text("1=x\nA=1\n")
    assert done({"env_file": str(file)}, tmp_path).returncode == 1


def test_what_slurm_tells_of_our_options_reaches_no_step(tmp_path: Path) -> None:
    """srun would take it for the user's."""
    text = '#!/bin/sh\necho "${SLURM_EXPORT_ENV-unset} ${SLURM_OPEN_MODE-unset}"\n'
    script = script_of(Environment(), program(tmp_path, text), tmp_path)
    told = {"SLURM_EXPORT_ENV": "NIL", "SLURM_OPEN_MODE": "a"}
    result = subprocess.run(["bash", script], capture_output=True, text=True, check=True, env=told)
    assert result.stdout == "unset unset\n"


def test_modules_are_purged_and_loaded_in_order(tmp_path: Path) -> None:
    """By whatever ``module`` the site has; setup lines come after them."""
    module = tmp_path / "module"
    module.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/modules\n')
    module.chmod(0o755)
    environment = {
        "variables": {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        "purge_modules": True,
        "modules": ["gcc/12", "a b; id"],
        "setup": [f'AFTER=$(wc -l < "{tmp_path}/modules"); export AFTER'],
    }
    assert shown(environment, tmp_path, "AFTER") == ["3"]
    assert (tmp_path / "modules").read_text() == "purge\nload gcc/12\nload a b; id\n"


def test_umask_is_what_the_site_says(tmp_path: Path) -> None:
    """Private without a word."""
    for umask, mode in (("027", 0o640), (None, 0o600)):
        node = program(tmp_path, "#!/bin/sh\n: > made\n")
        script = script_of(Environment(umask=umask), node, tmp_path)
        (tmp_path / "made").unlink(missing_ok=True)
        subprocess.run(["bash", script], check=True, cwd=tmp_path)
        assert (tmp_path / "made").stat().st_mode & 0o777 == mode


def test_script_in_a_bundle_goes_to_its_directory_by_itself(tmp_path: Path) -> None:
    """Slurm leaves it in the working directory of the bundle's config.json."""
    bundle = Environment.model_validate({"container": {"runtime": "slurm", "image": "/b"}})
    script = script_of(bundle, program(tmp_path, "#!/bin/sh\npwd\n"), tmp_path)
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout == f"{tmp_path}\n"


@pytest.mark.parametrize("code", [0, 3])
def test_teardown_runs_and_changes_no_exit_code(tmp_path: Path, code: int) -> None:
    """Not even when it fails itself."""
    environment = Environment(teardown=["echo over", "exit 9"])
    script = script_of(environment, program(tmp_path, f"#!/bin/sh\nexit {code}\n"), tmp_path)
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "over\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_signals_reach_the_node_program_before_the_teardown(tmp_path: Path, name: str) -> None:
    """The shell waits for it to end in good order, and its exit code is the job's."""
    node = program(
        tmp_path,
        f"#!{shutil.which('python3')}\nimport signal, sys, time\n"
        "def end(number, frame):\n"
        "    time.sleep(0.3)\n"
        "    print(signal.Signals(number).name, flush=True)\n"
        "    sys.exit(7)\n"
        "for number in (signal.SIGTERM, signal.SIGUSR1):\n"
        "    signal.signal(number, end)\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "signal.signal(signal.SIGINT, end)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n",
    )
    script = script_of(Environment(teardown=["echo over"]), node, tmp_path)
    with running(script) as process:
        process.send_signal(signal.Signals[name])
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert (output, process.returncode) == (f"{name}\nover\n", 7)


def test_without_teardown_the_node_program_takes_the_place_of_the_shell(tmp_path: Path) -> None:
    """No process more than necessary."""
    node = program(tmp_path, "#!/bin/sh\necho ready\nexec sleep 60\n")
    with running(script_of(Environment(), node, tmp_path)) as process:
        deadline = time.monotonic() + LIMIT_SECONDS
        command = Path(f"/proc/{process.pid}/cmdline")
        while command.read_bytes() != b"sleep\x0060\x00" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert command.read_bytes() == b"sleep\x0060\x00"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"venv": "/a", "python": "/b"}, "python and venv exclude each other"),
        ({"conda": {}}, "give either prefix, or root and name"),
        ({"conda": {"prefix": "/a", "name": "b"}}, "give either prefix, or root and name"),
        ({"conda": {"name": "b"}}, "root and name belong together"),
        ({"venv": "relative"}, "match pattern"),
        ({"umask": 23}, "valid string"),
        ({"umask": "999"}, "match pattern"),
        ({"variables": {"A B": "1"}}, "is no name of an environment variable"),
        ({"container": {"runtime": "slurm", "image": "x.sif"}}, "path of an OCI bundle"),
        ({"container": {"runtime": "slurm", "image": "/b", "gpu": "amd"}}, "config.json"),
        ({"container": {"image": "--bind /"}}, "match pattern"),
        ({"python": "python", "packed": "/a.tar"}, "name it as venv, conda or uv"),
        ({"venv": "/a", "packed": "/a.tar", "container": {}}, "packed and container exclude"),
    ],
)
def test_mistake_in_an_environment_is_told(content: dict[str, Any], message: str) -> None:
    """When agent.yaml is read, not when a job fails."""
    with pytest.raises(ConfigError, match=message):
        config(environment=content)


def test_interpreter_of_a_location_replaces_one_of_another_kind() -> None:
    """All else is inherited, variables one by one."""
    settings = config(
        environment={"venv": "/general", "modules": ["a"], "variables": {"A": "1", "B": "1"}},
        locations={
            "mine": {"environment": {"python": "/mine", "variables": {"B": "2"}}},
            "other": {"environment": {"modules": []}},
        },
    )
    mine = settings.environment_of("mine")
    assert (mine.interpreter, mine.prefix, mine.modules) == ("/mine", None, ["a"])
    assert mine.variables == {"A": "1", "B": "2"}
    other = settings.environment_of("other")
    assert (other.interpreter, other.modules) == ("/general/bin/python", [])


def test_archive_belongs_to_the_environment_beside_it() -> None:
    """A location with an interpreter or a container of its own does not unpack the general one."""
    settings = config(
        environment={"venv": "/general", "packed": "/general.tar"},
        locations={
            "mine": {"environment": {"venv": "/mine"}},
            "inside": {"environment": {"container": {"image": "/x.sif"}}},
            "other": {"environment": {"modules": ["a"]}},
        },
    )
    for name, interpreter in (("mine", "/mine/bin/python"), ("inside", "/general/bin/python")):
        environment = settings.environment_of(name)
        assert (environment.packed, environment.interpreter) == (None, interpreter)
    other = settings.environment_of("other")
    assert (other.packed, other.interpreter) == ("/general.tar", "python")


def test_run_in_a_container_is_bound_to_what_it_needs() -> None:
    """Its node-local directory and the code; nothing of the environment is on the command line."""
    plan = plan_run(
        config(
            environment={
                "variables": {"SECRET": "hunter2"},
                "container": {"image": "/i.sif", "binds": ["/data:/d:ro"], "gpu": "amd"},
            }
        ),
        RUN,
        deployment="prod",
    )
    for argv in (plan.spec.argv, plan.spec.resume_argv):
        assert argv[: argv.index("api")] == [
            "apptainer", "exec", "--rocm", "--pwd", "/code", "--bind", NodePath.TMP,
            "--bind", "/code", "--bind", "/data:/d:ro", "/i.sif",
            "/code/bin/python", "-m", "dagster",
        ]  # fmt: skip
        assert "hunter2" not in "".join(map(str, argv))


STAND_IN = """#!/bin/sh
# Reads its command line as apptainer-exec(1) does, and runs the command without a container.
[ "$1" = exec ] && shift || exit 64
while :; do
  case $1 in
    --bind) [ -e "${2%%:*}" ] || exit 65; shift 2 ;;
    --pwd) cd "$2"; shift 2 ;;
    --nv) shift ;;
    -*) exit 66 ;;
    *) break ;;
  esac
done
[ -e "$1" ] || exit 67
shift
exec "$@"
"""


def test_command_line_of_a_container_is_read_as_meant(tmp_path: Path) -> None:
    """By a stand-in for apptainer, which cannot be installed everywhere."""
    for name, text in (
        ("apptainer", STAND_IN),
        ("py", '#!/bin/sh\npwd\necho "$TOLD"\nprintf "%s " "$1" "$2" "$3" "$4"\n'),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    code, image, local = tmp_path / "my code", tmp_path / "i m.sif", tmp_path / "local"
    for directory in (code, image, local):
        directory.mkdir()
    environment = {
        "container": {"image": str(image), "binds": [f"{tmp_path}:/data:ro"], "gpu": "nvidia"},
        "python": str(tmp_path / "py"),
        "working_directory": str(code),
    }
    argv = plan_run(config(environment=environment), RUN, deployment="prod").spec.argv
    done = subprocess.run(
        [str(local) if word is NodePath.TMP else str(word) for word in argv],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "TOLD": "by the environment"},
    )
    assert done.stdout.splitlines() == [
        str(code),
        "by the environment",
        "-m dagster api execute_run ",
    ]


@pytest.mark.skipif(
    shutil.which("apptainer") is None,
    reason="apptainer is not installed; of Debian's releases only unstable has it",
)
def test_apptainer_itself_reads_it_alike(tmp_path: Path) -> None:
    """In a sandbox made of the directories of this machine that a shell needs."""
    image = tmp_path / "image"
    for name in ("bin", "lib", "lib64", "usr"):
        (image / name).mkdir(parents=True)
    (tmp_path / "local").mkdir()
    binds = [f"/{name}" for name in ("bin", "lib", "lib64", "usr")]
    # In a user namespace: it needs no setuid program then, and root none of the capabilities.
    container = {"image": str(image), "binds": binds, "options": ["--userns"]}
    environment = {"container": container, "python": "/bin/echo"}
    run = replace(RUN, code_origin={"repository_origin": {}})
    argv = plan_run(config(environment=environment), run, deployment="prod").spec.argv
    local = str(tmp_path / "local")
    words = [local if word is NodePath.TMP else str(word) for word in argv]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("-m dagster api execute_run ")


def test_image_of_a_code_location_is_used_where_none_is_named() -> None:
    """As it was deployed, by way of docker; without any image there is an error that says so."""
    settings = config(environment={"container": {"runtime": "singularity"}})
    server: dict[str, Any] = {"key": "srv-1", "deployment": "prod", "location": "here"}
    data = json.dumps({"image": "registry.example/etl:7"})
    argv = plan_server(settings, deploy_data=data, **server).spec.argv
    assert argv[:2] == ["singularity", "exec"]
    assert argv[argv.index("docker://registry.example/etl:7") + 1] == "python3"
    with pytest.raises(ConfigError, match="which image"):
        plan_server(settings, deploy_data="{}", **server)
    with pytest.raises(ConfigError, match="which image"):
        plan_run(settings, RUN, deployment="prod")
    origin = {"repository_origin": {**ORIGIN, "container_image": "registry.example/etl:7"}}
    run = plan_run(settings, replace(RUN, code_origin=origin), deployment="prod")
    assert "docker://registry.example/etl:7" in run.spec.argv


def test_bundle_is_an_option_of_sbatch() -> None:
    """Slurm starts the whole script in it; a server without a job of its own cannot have one."""
    bundle = {"runtime": "slurm", "image": "/bundles/a b"}
    plan = plan_run(config(environment={"container": bundle}), RUN, deployment="prod")
    assert "--container=/bundles/a b" in [setting.directive for setting in plan.settings]
    assert script_values(plan, directory=Path("/work/a"), node_python="python3").in_bundle
    assert plan.spec.argv[0] == "/code/bin/python"
    settings = config(environment={"container": bundle}, code_servers={"placement": "login"})
    with pytest.raises(ConfigError, match="job of its own"):
        plan_server(settings, key="srv-1", deployment="prod", location="here", deploy_data="{}")


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({}, "4"),
        ({"variables": {"OMP_NUM_THREADS": "2"}}, "2"),
        ({"setup": ["export OMP_NUM_THREADS=3"]}, "3"),
        ({"omp_num_threads": False}, "(unset)"),
    ],
)
def test_threads_are_as_many_as_the_cpus_of_a_task(
    environment: dict[str, Any], threads: str, tmp_path: Path
) -> None:
    """Unless the site or the user says otherwise, in any of the ways there are."""
    of_slurm = {"SLURM_CPUS_PER_TASK": "4"}
    environment |= {"variables": of_slurm | environment.get("variables", {})}
    assert shown(environment, tmp_path, "OMP_NUM_THREADS") == [threads]


def test_job_that_says_nothing_of_its_cpus_keeps_its_threads(tmp_path: Path) -> None:
    """A whole node, for instance: Slurm does not say how many of its cores a task is to have."""
    assert shown({}, tmp_path, "OMP_NUM_THREADS") == ["(unset)"]
