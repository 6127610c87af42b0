"""A user without a name and without a home, as `docker run --user 12345` and OpenShift have it: a real process of such
a uid, in a checkout that it owns."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import Project, make_project

UID = 12345
pytestmark = pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("setpriv") is None, reason="becoming another user needs root and setpriv"
)


def as_nobody(*command: str) -> list[str]:
    """`command` as a uid that stands in no /etc/passwd. Where the interpreter lies in a folder that only root may
    enter, the process may enter and read every folder; what it may write is the uid's alone."""
    became = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    # By a process of the uid: what setpriv itself starts is found with root's permissions.
    look = [*became, "sh", "-c", 'exec "$0" -c ""', sys.executable]
    if subprocess.run(look, capture_output=True, check=False).returncode != 0:
        became += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return [*became, *command]


def bare(root: Path, **more: str) -> dict[str, str]:
    """What a container's process finds: no HOME, no USER, nothing of this session's."""
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])
    return {"PATH": path, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8", **more}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own may not be."""
    with tempfile.TemporaryDirectory(prefix="users-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


SHOW = (
    "import getpass, os; from pathlib import Path; from ganpipe import environment; environment.apply_defaults(); "
    "from ganpipe.data.access.host_cache import host_cache; "
    "print(getpass.getuser(), Path.home(), os.environ.get('RAY_AUTH_TOKEN_PATH'), host_cache(), sep='\\n')"
)


@pytest.mark.parametrize("home", [None, "", "relative", "/nowhere/at/all", "closed"])
def test_a_user_without_a_home_gets_one_in_the_checkout(folder: Path, home: str | None) -> None:
    (folder / ".dvc").mkdir()
    if home == "closed":  # root's own, as an image may say for whoever runs it
        (folder / home).mkdir(mode=0o700)
        home = str(folder / home)
    variables = bare(Path(__file__).parents[2], **({} if home is None else {"HOME": home}))
    said = subprocess.run(
        as_nobody(sys.executable, "-c", SHOW), cwd=folder, env=variables, capture_output=True, text=True, check=True
    )
    own = folder / ".ganpipe" / f"home-{UID}"
    assert said.stdout.splitlines() == [f"uid-{UID}", str(own), "None", str(own / ".cache" / "ganpipe")]


def test_a_home_that_is_read_only_stays_and_nothing_is_written_there(folder: Path) -> None:
    (folder / ".dvc").mkdir()
    variables = bare(Path(__file__).parents[2], HOME="/", USER="ada", XDG_CACHE_HOME="/own/cache")
    said = subprocess.run(
        as_nobody(sys.executable, "-c", SHOW), cwd=folder, env=variables, capture_output=True, text=True, check=True
    )
    token = folder / ".ganpipe" / f"home-{UID}" / ".ray" / "auth_token"
    assert said.stdout.splitlines() == ["ada", "/", str(token), "/own/cache/ganpipe"]


def test_a_token_or_a_cluster_that_is_there_already_stays(folder: Path) -> None:
    (folder / ".dvc").mkdir()
    (folder / "home" / ".ray").mkdir(parents=True)
    variables = bare(Path(__file__).parents[2], HOME=str(folder / "home"), RAY_ADDRESS="10.0.0.5:6379")
    command = as_nobody(sys.executable, "-c", SHOW)
    for prepare in (lambda: None, lambda: (folder / "home" / ".ray" / "auth_token").write_text("token")):
        prepare()
        said = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=True)
        assert said.stdout.splitlines()[1:3] == [str(folder / "home"), "None"]
        variables.pop("RAY_ADDRESS", None)


def test_outside_of_a_checkout_one_line_names_home(folder: Path) -> None:
    code = "from ganpipe.data.access.host_cache import host_cache; host_cache()"
    variables = bare(Path(__file__).parents[2])
    said = subprocess.run(
        as_nobody(sys.executable, "-c", code), cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    line = "this user has no home: set HOME, or GANPIPE_CACHE, to a folder that you may write to"
    assert said.stderr.splitlines()[-1] == f"ganpipe.errors.GanpipeError: {line}"


def test_an_output_in_a_place_of_somebody_else_is_refused_before_any_work(folder: Path) -> None:
    theirs, shared = folder / "theirs.png", folder / "shared.png"
    for path, mode in ((theirs, 0o644), (shared, 0o666)):
        path.write_bytes(b"kept")
        path.chmod(mode)
    code = (
        "import sys; from pathlib import Path; from ganpipe.commands import output\n"
        "for out in map(Path, sys.argv[1:]):\n"
        "  try:\n    output.is_folder(out, '.png'); output.write(out, b'new'); print('written')\n"
        "  except output.GanpipeError as error:\n    print(error)\n"
    )
    outs = [theirs, shared, folder / "more.png", folder / "new" / "more.png", folder]
    command = as_nobody(sys.executable, "-c", code, *map(str, outs))
    said = subprocess.run(
        command, cwd=folder, env=bare(Path(__file__).parents[2]), capture_output=True, text=True, check=True
    )
    refused = [f"--out: {out}: this user may not write to {{}}; choose another place" for out in outs]
    assert (
        said.stdout.splitlines()
        == [
            refused[0].format(theirs),
            "written",  # the folder takes no new file, but this one may be written
            *(line.format(folder) for line in refused[2:]),
        ]
    )
    assert (theirs.read_bytes(), shared.read_bytes()) == (b"kept", b"new")


@pytest.mark.slow
def test_the_whole_pipeline_without_a_name_or_a_home(folder: Path) -> None:
    made = make_project(folder / "project")
    made.set("tune.num_trials", 0)
    made.commit("No search")
    subprocess.run(["chown", "-R", f"{UID}:{UID}", made.root], check=True)
    project = Project(made.root, bare(made.root))
    own = project.root / ".ganpipe" / f"home-{UID}"
    try:
        wanted = {"USER": f"uid-{UID}", "HOME": str(own)}
        assert exports(project.run(*as_nobody("ganpipe", "check"))) == wanted
        said = project.run(*as_nobody("python", "-m", "pipelines"))
        assert "model    models:/ganpipe-mnist/1 @challenger @champion" in said
        assert f"registered by uid-{UID}" in project.run(*as_nobody("ganpipe", "models", "--history"))
        token = own / ".ray" / "auth_token"
        assert (token.stat().st_uid, token.stat().st_mode & 0o777) == (UID, 0o600)
        project.run(*as_nobody("ganpipe", "down"))

        # `dvc` is no command of ganpipe's: what `check` names is what it needs. Docker gives such a user HOME=/.
        typed = Project(project.root, {**project.environment, "HOME": "/"})
        typed.environment.update(exports(typed.run(*as_nobody("ganpipe", "check"))))
        assert typed.environment["HOME"] == "/"
        typed.run(*as_nobody("dvc", "repro", "--force"))
    finally:
        project.run(*as_nobody("ganpipe", "down"))


def exports(said: str) -> dict[str, str]:
    """The variables that `ganpipe check` tells this user to set."""
    (line,) = (line for line in said.splitlines() if line.startswith("this user has no name or no home to write to: "))
    return dict(word.split("=", 1) for word in shlex.split(line.partition(" export ")[2]))
