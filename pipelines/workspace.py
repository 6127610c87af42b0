"""A run's own workspace: a clone of the checkout at one revision, which shares DVC's cache and ends as an experiment.

Runs that are at work at the same time do not see each other, nor what is edited in the checkout meanwhile. What has to
outlive a run (services, MLflow's database, the work of an interrupted stage) stays in the checkout: see
`ganpipe.environment.home`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import JsonValue

from ganpipe.errors import GanpipeError
from ganpipe.redaction import redact
from ganpipe.section import nearest

from .graph import open_repo

WORKSPACES = Path(".ganpipe") / "workspaces"
DVC = (sys.executable, "-m", "dvc")
PACKAGE = Path("ganpipe")
"""Code of all stages, whichever files of it each depends on."""
Uncommitted = Literal["refuse", "ignore", "include"]
"""What a run does where the checkout holds something else than its commit: see `opened`."""


@dataclass(frozen=True)
class Workspace:
    """A clone below the checkout.

    Attributes:
        checkout: where it was cloned from, absolute.
        name: of the run, its folder, and its experiment.
        commit: full hash of the revision it stands at.
    """

    checkout: Path
    name: str
    commit: str

    @property
    def root(self) -> Path:
        return self.checkout / WORKSPACES / self.name


def experiment_name(run_name: str, run_id: str, taken: Sequence[str]) -> str:
    """`run_name` as git allows it in a ref; with the start of `run_id` where another run has taken it."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", run_name).strip("-") or "run"
    return name if name not in taken else f"{name}-{run_id[:8]}"


def resolve(checkout: Path, revision: str) -> str:
    """The full hash of the commit that `revision` (branch, tag, hash, `HEAD~1`, experiment's name) names.

    Raises:
        GanpipeError: the checkout knows no such commit, or is no git repository.
    """
    if revision.startswith("-"):
        raise GanpipeError(f"revision: got {revision!r}; expected a branch, a tag or a commit")
    names = [revision, *_experiment_refs(checkout, revision)]
    for name in names:
        found = _git(
            checkout, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", check=False
        )
        if found is not None:
            return found
    known = (_git(checkout, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags") or "").split()
    known += experiments(checkout)
    raise GanpipeError(f"revision: this repository has no commit {revision!r}; {nearest(revision, known)}")


def experiments(checkout: Path) -> list[str]:
    """Names of all DVC experiments of the checkout."""
    refs = _git(checkout, "for-each-ref", "--format=%(refname)", "refs/exps") or ""
    return sorted({ref.rpartition("/")[2] for ref in refs.split() if ref.count("/") == 4})


def uncommitted(checkout: Path) -> list[str]:
    """Files that differ from HEAD and folders that git does not know; DVC's lock is the pipeline's own."""
    listed = _git(checkout, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=normal") or ""
    names = [entry[3:] for entry in listed.split("\0") if entry]
    return [name for name in names if Path(name).name != "dvc.lock"]


def decisive(checkout: Path, names: Sequence[str]) -> dict[str, Path]:
    """Those of `names` that decide what stages make, each with the input that it touches: a dependency or settings file
    of a stage, a dvc.yaml, the package.

    Raises:
        GanpipeError: DVC cannot read the checkout.
    """
    with open_repo(checkout) as repo:
        outs = {Path(out.fs_path) for out in repo.index.outs}
        inputs = {Path(dep.fs_path) for dep in repo.index.deps if dep.protocol == "local"} - outs
        inputs |= {Path(stage.path) for stage in repo.index.stages}
    inputs |= {checkout / PACKAGE, checkout / ".dvc" / "config", checkout / ".dvcignore"}
    found = {}
    for name in names:
        path = checkout / name
        # A folder that git does not know is named as one, with all that is in it.
        touched = sorted(one for one in inputs if path == one or one in path.parents or path in one.parents)
        if touched:
            found[name] = touched[0].relative_to(checkout)
    return found


def require_committed(checkout: Path, ways: Mapping[str, str]) -> None:
    """Refuse a run that would lack uncommitted files of the checkout that decide its result.

    Args:
        ways: how to start the run nevertheless: values of the parameter `uncommitted`, and what each does.

    Raises:
        GanpipeError: says what to commit, and how.
    """
    edited = decisive(checkout, uncommitted(checkout))
    if not edited:
        return
    names = list(edited)
    command = f"git add {' '.join(map(shlex.quote, names))} && git commit" if len(names) <= 5 else "git commit"
    new = (_git(checkout, "ls-files", "-z", "--others", "--exclude-standard", "--directory") or "").split("\0")
    data = sorted({f"/{place}/" for name, place in edited.items() if name in new and (checkout / place).is_dir()})
    data = [place for place in data if not place.startswith(f"/{PACKAGE}/")]
    hint = ""
    if data:
        exclude = f"echo {shlex.quote(data[0])} >> .git/info/exclude"
        hint = f". Images need not be in git: `{exclude}`, and every run has those that are there when it begins"
    choice = ", or ".join(f"uncommitted={value}, which {does}" for value, does in ways.items())
    raise GanpipeError(
        f"not committed, and it decides what a run makes: {listing(names)}. Commit it (`{_printable(command)}`), or "
        f"start the run with {choice}{_printable(hint)}"
    )


def listing(names: Sequence[str]) -> str:
    """The first five of `names`, and how many more there are."""
    shown = [_printable(name) for name in names[:5]]
    return ", ".join(shown if len(names) <= 5 else [*shown, f"{len(names) - 5} more"])


def _printable(text: str) -> str:
    """`text` without the bytes of file names that are no UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


@contextmanager
def opened(
    checkout: Path, name: str, revision: str, is_retry: bool, uncommitted: Uncommitted = "ignore"
) -> Iterator[Workspace]:
    """A workspace for the run `name`, held by this process and left in place; `close` removes it.

    Args:
        revision: see `resolve`.
        is_retry: the run is a retry: the workspace that its last try left is taken up as it is.
        uncommitted: for the revision HEAD, what becomes of what lies in the checkout and is in no commit: `refuse` the
            run where that decides what it makes, `ignore` it, or `include` it.

    Raises:
        GanpipeError: the revision is unknown, another process works there, or something is to be committed first.
    """
    if uncommitted == "include" and revision != "HEAD":
        raise GanpipeError(f"uncommitted: include is for what lies in the checkout, not for the revision {revision!r}")
    commit = resolve(checkout, revision)
    workspace = Workspace(checkout, name, commit)
    taken_up = is_retry and (workspace.root / ".git").exists()
    if uncommitted == "refuse" and revision == "HEAD" and not taken_up:
        require_committed(checkout, {"include": "takes it along as it lies here", "ignore": "runs without it"})
    workspace.root.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(checkout, name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise GanpipeError(f"{workspace.root} is in use: a run of the name {name!r} is at work already") from None
    try:
        if not taken_up:
            shutil.rmtree(workspace.root, ignore_errors=True)
            _make(workspace)
            if uncommitted == "include":
                _bring_edits(workspace)
        yield workspace
    finally:
        lock.release()


def _make(workspace: Workspace) -> None:
    root, checkout = workspace.root, workspace.checkout
    _git(checkout, "clone", "--quiet", "--shared", "--no-checkout", str(checkout), str(root))
    _git(root, "checkout", "--quiet", "--detach", workspace.commit)
    _sign(root)
    with open_repo(checkout) as repo:
        cache = Path(repo.cache.local.path).parent.parent  # <cache>/files/md5
        local = checkout / ".dvc" / "config.local"
        if local.exists():
            shutil.copy2(local, root / ".dvc" / "config.local")
        subprocess.run([*DVC, "cache", "dir", "--local", "--quiet", str(cache)], cwd=root, check=True)
        _bring_ignored_inputs(repo, workspace)
    _bring_tracked_data(root)


def _sign(root: Path) -> None:
    """Set git's author where none is configured, as in a container: without one, DVC would refuse to save the run's
    experiment after the last stage."""
    for key, value in (("user.name", "ganpipe"), ("user.email", "ganpipe@localhost")):
        if not _git(root, "config", "--get", key, check=False):
            _git(root, "config", key, value)


def _bring_ignored_inputs(repo: Any, workspace: Workspace) -> None:
    """What stages read and git ignores (a folder of images) as it is now: hard links where the disk allows, so that it
    costs no space, else copies. Files of the run's own revision are never replaced."""
    outs = [Path(out.fs_path) for out in repo.index.outs]
    for dep in {Path(dep.fs_path) for dep in repo.index.deps if dep.protocol == "local"}:
        if any(dep == out or out in dep.parents for out in outs) or workspace.checkout not in dep.parents:
            continue
        relative = dep.relative_to(workspace.checkout)
        listed = _git(
            workspace.checkout, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--", str(relative)
        )
        for name in filter(None, (listed or "").split("\0")):
            source, target = workspace.checkout / name, workspace.root / name
            if repo.dvcignore.is_ignored_file(str(source)) or target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:
                shutil.copy2(source, target)


def _bring_edits(workspace: Workspace) -> None:
    """What differs in the checkout from HEAD, and what git does not know and does not ignore; DVC's lock stays."""
    changed = _git(workspace.checkout, "diff", "--name-only", "-z", "--no-renames", "HEAD") or ""
    new = _git(workspace.checkout, "ls-files", "-z", "--others", "--exclude-standard") or ""
    for name in filter(None, f"{changed}\0{new}".split("\0")):
        source, target = workspace.checkout / name, workspace.root / name
        if source.name == "dvc.lock":
            continue
        if source.is_dir() and not source.is_symlink():  # a repository of its own
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        elif os.path.lexists(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
        else:
            target.unlink(missing_ok=True)


def _bring_tracked_data(root: Path) -> None:
    """Data added with `dvc add`: from the shared cache, else from the default remote."""
    tracked = (_git(root, "ls-files", "-z", "--", "*.dvc") or "").split("\0")[:-1]
    if not tracked:
        return
    for command in ("checkout", "pull"):
        done = subprocess.run(
            [*DVC, command, "--quiet", *tracked], cwd=root, capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return
    raise GanpipeError(
        f"{', '.join(tracked)}: the data is neither in DVC's cache nor in a remote: {redact(done.stderr.strip())}"
    )


def override(workspace: Workspace, overrides: Mapping[str, JsonValue]) -> None:
    """Set keys of the workspace's params.yaml, comments kept. Whether they mean anything, `ganpipe check` says.

    Args:
        overrides: values by dotted key, `{"train.num_images": 5000}`.

    Raises:
        GanpipeError: a key lies below something that is no section.
    """
    from dvc.utils.serialize import modify_yaml

    with modify_yaml(str(workspace.root / "params.yaml")) as params:
        for dotted, value in overrides.items():
            *parents, last = dotted.split(".")
            section = params
            for index, name in enumerate(parents):
                section = section.setdefault(name, {})
                if not isinstance(section, dict):
                    raise GanpipeError(f"overrides: {dotted}: {'.'.join(parents[: index + 1])} is no section")
            section[last] = value


def save(workspace: Workspace, stages: Sequence[str], message: str) -> str:
    """Keep what the workspace holds as the experiment `workspace.name` of the checkout, on its commit.

    Args:
        stages: those that ran; outputs of others may be missing.

    Returns:
        The experiment's commit.

    Raises:
        GanpipeError: DVC refuses (in its words).
    """
    _dvc(workspace.root, "exp", "save", "--force", "--name", workspace.name, "--message", message, *stages)
    prefix = f"refs/exps/{workspace.commit[:2]}/{workspace.commit[2:]}/{workspace.name}"
    # A plain fetch by the checkout: it takes one ref and looks at no working tree.
    _git(workspace.checkout, "fetch", "--quiet", "--no-tags", str(workspace.root), f"+{prefix}:{prefix}")
    return _git(workspace.checkout, "rev-parse", prefix) or ""


def close(workspace: Workspace) -> None:
    """Remove the workspace; its experiment and everything in DVC's cache stay."""
    shutil.rmtree(workspace.root, ignore_errors=True)
    _state_path(workspace).unlink(missing_ok=True)


def note_failure(workspace: Workspace, reason: str) -> None:
    """Say beside the kept workspace of a failed run why it is there."""
    text = json.dumps({"commit": workspace.commit, "reason": reason}, indent=2)
    _state_path(workspace).write_text(text + "\n", encoding="utf-8")


def sweep(checkout: Path, keep_hours: float) -> list[str]:
    """Remove the workspaces that no process holds and that nothing was written to for `keep_hours`; their names."""
    removed = []
    for root in sorted((checkout / WORKSPACES).glob("*/")):
        lock = _lock(checkout, root.name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            newest = max((path.lstat().st_mtime for path in (root, *root.iterdir())), default=0.0)
            if time.time() - newest >= keep_hours * 3600:
                close(Workspace(checkout, root.name, ""))
                removed.append(root.name)
        finally:
            lock.release()
        if root.name in removed:
            Path(lock.lock_file).unlink(missing_ok=True)
    return removed


def _lock(checkout: Path, name: str) -> FileLock:
    # The system releases it when the process that holds it ends, however it ends.
    return FileLock(checkout / WORKSPACES / f"{name}.lock")


def _state_path(workspace: Workspace) -> Path:
    return workspace.root.with_name(f"{workspace.name}.json")


def _experiment_refs(checkout: Path, name: str) -> list[str]:
    refs = (_git(checkout, "for-each-ref", "--format=%(refname)", "refs/exps", check=False) or "").split()
    return [ref for ref in refs if ref.count("/") == 4 and ref.rpartition("/")[2] == name]


def _git(where: Path, *arguments: str, check: bool = True) -> str | None:
    """Standard output of git, stripped; None where it failed and `check` is off."""
    # File names in git's output need not be UTF-8.
    done = subprocess.run(
        ["git", *arguments], cwd=where, capture_output=True, text=True, errors="surrogateescape", check=False
    )
    if done.returncode == 0:
        return done.stdout.strip("\n")
    if check:
        raise GanpipeError(f"{where}: git {arguments[0]}: {redact(' '.join(done.stderr.split()))}")
    return None


def _dvc(root: Path, *arguments: str) -> None:
    done = subprocess.run([*DVC, *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GanpipeError(f"dvc {' '.join(arguments[:2])}: {redact(done.stderr.strip())}")
