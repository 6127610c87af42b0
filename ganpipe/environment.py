"""Where this checkout is, and what every process of the pipeline finds in its environment.

Nothing here imports more than the standard library: the command line starts with it.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from .cpus import allowed_cpus, usable_cpus
from .errors import GanpipeError

CHECKOUT = "GANPIPE_CHECKOUT"
_COPIES = (Path(".dvc") / "tmp" / "exps", Path(".ganpipe") / "workspaces")
"""Below a checkout: where `dvc exp run --temp` and `--queue` run their stages, and where flows do."""

STAGE_SECONDS = Path(".ganpipe") / "stage_seconds.json"
"""Wall time of each stage the last time it ran. Below `repo_root`."""

NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""No tool of the pipeline reports to its maker, unless the caller's own environment says otherwise."""

LOOPBACK_RAY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
"""Ray listens on, and looks for, 127.0.0.1 only, and accepts only clients with the token in ~/.ray/auth_token.

Without the first, Ray on Linux turns 127.0.0.1 into the host's outer address and its ports are open to the network,
where whoever reaches them can run code. Without the second, `ray start` asks for a token where that file happens to
exist, and clients do not send it. Both have to be set in the head and in every process that connects to it.
"""

SHARED_HOST = {"RAY_worker_niceness": "0"}
"""Ray gives its workers the niceness 15: any ordinary process then takes nearly all of a core that both want. With 0
they share it. It is read where Ray starts on a host."""

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1")
"""As `no_proxy` has them. Prefect's client (httpx) takes no network and fails at an address in brackets."""

_UNFIT = {
    "%": "the migrations of MLflow's database",
    "?": "the address of MLflow's database, sqlite:///...",
    "{}": "DVC's progress bars",
    ":": "PATH and PYTHONPATH, where it separates two folders",
    '"$`\\': "the first line of the commands in .venv/bin",
}
"""Characters of a path, and what fails at them."""
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

RAY_TOKEN = Path(".ray") / "auth_token"
"""Where Ray keeps its token, below HOME."""

ADDED_FOR_USER: dict[str, str] = {}
"""What `missing_user` added to this process; a `dvc` or `prefect` that this user types does not have it."""


def require_usable_path(path: Path) -> None:
    """Refuse a folder whose path the pipeline's tools do not all take; spaces, quotes ('), accents, # and & are fine.

    Raises:
        GanpipeError: names the character and what fails at it.
    """
    reasons = [(character, reason) for unfit, reason in _UNFIT.items() for character in unfit if character in str(path)]
    if match := _UNPRINTABLE.search(str(path)):
        reasons.append((match[0], "lines of logs and tables"))
    if reasons:
        character, reason = reasons[0]
        raise GanpipeError(
            f"{str(path)!r}: the path has a {character!r}, which does not fit into {reason}; rename that folder, or "
            "move what lies in it"
        )


def repo_root(start: Path | None = None) -> Path:
    """The checkout that `start` (default: the working directory) lies in: the nearest folder up with `.dvc` in it.

    Raises:
        GanpipeError: `start` is in no DVC repository.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / ".dvc").is_dir():
            return folder
    raise GanpipeError(f"{start} is in no DVC repository (no .dvc folder here or above): change into the checkout")


def home(here: Path | None = None) -> Path:
    """The checkout whose services, MLflow database and interrupted work this process uses, see `owner`.

    `GANPIPE_CHECKOUT` where it is set: a workspace names the checkout that it was made from. Else that of `here`, by
    default the working directory; outside every checkout it is `here` itself.

    Raises:
        GanpipeError: `GANPIPE_CHECKOUT` names no folder.
    """
    chosen = os.environ.get(CHECKOUT)
    start = Path(chosen or here or Path.cwd()).resolve()
    if chosen and not start.is_dir():
        raise GanpipeError(f"{CHECKOUT}: {chosen} is no folder; name a checkout of the project, or unset the variable")
    roots = (folder for folder in (start, *start.parents) if (folder / ".dvc").is_dir())
    return owner(next(roots, start))


def owner(root: Path) -> Path:
    """The checkout that keeps what outlives the runs in `root`: services, MLflow's database, interrupted work.

    A copy that DVC or a flow made below a checkout belongs to that checkout; a worktree of git belongs to the main one.
    Else it is `root` itself.

    Args:
        root: absolute, with `.dvc` in it.
    """
    for folder in root.parents:
        if (folder / ".dvc").is_dir() and any(root.is_relative_to(folder / copies) for copies in _COPIES):
            return owner(folder)
    main = _main_worktree(root)
    return root if main is None else owner(main)


def _main_worktree(root: Path) -> Path | None:
    """The place of `root` in the main worktree; None where it lies there, or where there is no main worktree.

    Read from git's files, because git itself refuses to answer in a repository that another user owns.
    """
    top = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), None)
    if top is None or not (top / ".git").is_file():
        return None
    git_dir = top / (top / ".git").read_text(encoding="utf-8", errors="surrogateescape").partition(":")[2].strip()
    pointer = git_dir / "commondir"
    if not pointer.is_file():  # a submodule, or a repository whose .git lies elsewhere
        return None
    common = (git_dir / pointer.read_text(encoding="utf-8", errors="surrogateescape").strip()).resolve()
    main = common.parent / root.relative_to(top)
    return main if common.name == ".git" and (main / ".dvc").is_dir() else None


def other_code_here() -> Path | None:
    """The checkout of the working directory, where it has code of its own but another checkout's code runs; else None.

    An installation belongs to the checkout that it was made in, but is also called in worktrees, in copies and in the
    folders of `_COPIES`.
    """
    here = Path.cwd().resolve()
    root = next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), None)
    if root is None or not (root / "ganpipe" / "__main__.py").is_file():
        return None
    return None if (root / "ganpipe").samefile(Path(__file__).parent) else root


def with_code_of(root: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """`variables` for a process that is to run the code of `root`: an editable install points to another checkout, and
    PYTHONPATH comes before it."""
    return {**variables, "PYTHONPATH": os.pathsep.join(filter(None, [str(root), variables.get("PYTHONPATH", "")]))}


def without_running_code(search_path: str) -> str:
    """`search_path`, a value of PYTHONPATH, without the place of the code that runs."""
    own = Path(__file__).resolve().parents[1]
    return os.pathsep.join(part for part in search_path.split(os.pathsep) if part and Path(part).resolve() != own)


def is_loopback(address: str) -> bool:
    """Whether `address` (`host:port`, or a URL) is on this machine's loopback interface."""
    host = urlsplit(address if "://" in address else f"//{address}").hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def loopback_past_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """`no_proxy` and `NO_PROXY` with what `environment` has there and the loopback hosts; {} where no proxy is set.

    Both spellings, because clients differ in which one they read. Without a proxy they stay away: where the system
    has proxies of its own (macOS), a variable would take their place.
    """
    proxies = {name.lower() for name, value in environment.items() if value and name.lower().endswith("_proxy")}
    if proxies <= {"no_proxy"}:
        return {}
    extended = {}
    for name, other in (("no_proxy", "NO_PROXY"), ("NO_PROXY", "no_proxy")):
        present = environment.get(name) or environment.get(other) or ""
        hosts = [host.strip() for host in present.split(",") if host.strip()]
        if "*" not in hosts:
            extended[name] = ",".join([*hosts, *(host for host in LOOPBACK_HOSTS if host not in hosts)])
    return extended


def defaults(environment: Mapping[str, str]) -> dict[str, str]:
    """What `environment` still lacks: no telemetry, Ray's workers with ordinary priority, loopback past proxies, Ray on
    loopback unless a cluster elsewhere is named, and a name and a home for a user who has none."""
    wanted = NO_TELEMETRY | SHARED_HOST
    if is_loopback(environment.get("RAY_ADDRESS", "127.0.0.1")):
        wanted |= LOOPBACK_RAY
    wanted = {name: value for name, value in wanted.items() if name not in environment}
    return wanted | loopback_past_proxies(environment) | missing_user(environment)


def missing_user(environment: Mapping[str, str]) -> dict[str, str]:
    """What DVC, Prefect, Ray and others ask of every user, and a container's uid may lack: a name and a home.

    A home that can only be read stays HOME, because credentials may lie in it; what would be written there for the
    first time goes elsewhere.
    """
    try:
        known = pwd.getpwuid(os.getuid())
    except KeyError:  # this uid stands in no /etc/passwd
        known = None
    found = {}
    if known is None and not any(environment.get(name) for name in ("LOGNAME", "USER")):
        found["USER"] = f"uid-{os.getuid()}"
    chosen = environment.get("HOME") or (known.pw_dir if known is not None else "")
    usable = os.path.isabs(chosen) and os.path.isdir(chosen) and os.access(chosen, os.X_OK)
    if usable and not environment.get("HOME"):
        found["HOME"] = chosen
    private = None if usable and os.access(chosen, os.W_OK) else _private_home()
    if private is None:
        return found
    if not usable:
        return found | {"HOME": str(private)}
    instead = {"MPLCONFIGDIR": private / "matplotlib", "XDG_CACHE_HOME": private / ".cache"}
    if not os.path.exists(os.path.join(chosen, ".prefect")):
        instead["PREFECT_HOME"] = private / ".prefect"
    loopback = is_loopback(environment.get("RAY_ADDRESS", "127.0.0.1"))  # another cluster has a token of its own
    if loopback and not environment.get("RAY_AUTH_TOKEN") and not os.path.exists(os.path.join(chosen, RAY_TOKEN)):
        instead["RAY_AUTH_TOKEN_PATH"] = private / RAY_TOKEN
    return found | {name: str(path) for name, path in instead.items() if not environment.get(name)}


def _private_home() -> Path | None:
    """What serves as this user's home in this checkout; None outside of a checkout."""
    try:
        return home(repo_root()) / ".ganpipe" / f"home-{os.getuid()}"
    except GanpipeError:
        return None


def apply_defaults() -> None:
    """Put `defaults` into this process's environment; before ray, prefect, mlflow or torch is imported."""
    ADDED_FOR_USER.update(missing_user(os.environ))
    os.environ.update(defaults(os.environ))
    # Libraries for numbers start a thread for each CPU that they may run on, and know nothing of a container's limit.
    if (num_cpus := usable_cpus()) < allowed_cpus():
        os.environ.setdefault("OMP_NUM_THREADS", str(num_cpus))
