"""The image of infra/Dockerfile, built by Debian's buildah; root only.

In place of PYTHON_IMAGE, which no package registry has, stands Debian 12 with its own Python 3.11, made by debootstrap.
The Dockerfile's commands run as they are (isolation chroot). Packages come from where this machine's pip and apt take
them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from compose_file import INFRA, ROOT

BASE, IMAGE = "localhost/python:3.11", "localhost/ganpipe:tests"


def require_tools() -> None:
    """Install what is missing, as root on Debian; skip where that does not help, and fail there in CI."""
    tools = ["buildah", "debootstrap"]
    if any(shutil.which(tool) is None for tool in tools) and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *tools]):
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(["apt-get", *command], env=environment, stdout=subprocess.DEVNULL, check=False)
    missing = [tool for tool in tools if shutil.which(tool) is None]
    reason = f"not here: {', '.join(missing)} (apt-get install)" if missing else ""
    if not reason and os.geteuid() != 0:
        reason = "building an image with buildah's storage driver vfs needs root"
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


class Built:
    """The built image in a storage of its own; `close` removes it.

    Attributes:
        root: the image's root filesystem, as a folder.
    """

    def __init__(self, folder: Path) -> None:
        self._storage = [f"--root={folder}/storage", f"--runroot={folder}/run", "--storage-driver=vfs"]
        self._folder = folder
        self._make_base()
        (folder / "pip.conf").write_text(_pip_configuration())
        self._buildah(
            "bud",
            "--isolation=chroot",
            f"--build-arg=PYTHON_IMAGE={BASE}",
            f"--secret=id=pip_conf,src={folder}/pip.conf",
            *(f"--volume={place}:{place}:ro" for place in _places_of_packages()),
            f"--file={INFRA / 'Dockerfile'}",
            f"--ignorefile={INFRA / 'Dockerfile.dockerignore'}",
            f"--tag={IMAGE}",
            str(ROOT),
        )
        self.container = self._buildah("from", IMAGE)
        self.root = Path(self._buildah("mount", self.container))

    def _make_base(self) -> None:
        folder = self._folder / "debian"
        packages = "--include=python3.11,python3.11-venv,python3-distutils,python3-lib2to3,ca-certificates"
        _run(["debootstrap", "--variant=minbase", packages, "bookworm", str(folder), *_mirror()])
        (folder / "usr/bin/python").symlink_to("python3.11")
        container = self._buildah("from", "scratch")
        _run(["cp", "-a", f"{folder}/.", self._buildah("mount", container)])
        self._buildah("config", "--env=PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", container)
        self._buildah("umount", container)
        self._buildah("commit", container, BASE)
        self._buildah("rm", container)
        shutil.rmtree(folder)

    def configured(self, what: str) -> str:
        """A property of the image, as a template of `buildah inspect` names it."""
        return self._buildah("inspect", "--type=image", f"--format={what}", IMAGE)

    def close(self) -> None:
        self._buildah("rm", "--all")
        self._buildah("rmi", "--all", "--force")
        shutil.rmtree(self._folder, ignore_errors=True)

    def _buildah(self, command: str, *arguments: str) -> str:
        return _run(["buildah", *self._storage, command, *arguments])


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout.strip()


def _mirror() -> list[str]:
    """Where this machine's apt takes Debian 12 from; debootstrap knows a mirror itself."""
    described = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Codename: bookworm", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.split()[:1]


def _pip_values() -> dict[str, str]:
    """Options of this machine's pip by name, those of the environment above those of files."""
    listed = _run([shutil.which("pip") or "pip", "config", "list"])
    found: dict[str, str] = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        key, _, value = line.partition("=")
        found[key.rpartition(".")[2]] = value.strip().strip("'\"")
    return found


def _pip_configuration() -> str:
    lines = [f"{name} = {value}" for name, value in _pip_values().items()]
    return "\n".join(["[global]", *lines]) + "\n"


def _places_of_packages() -> list[str]:
    """Folders of this machine that pip's configuration names: they are mounted while the image is built."""
    found = set()
    for word in " ".join(_pip_values().values()).split():
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.exists():
            # The packages of an index lie beside its pages.
            found.add(str(path if path.is_dir() and not word.startswith("file://") else path.parent))
    return sorted(found)
