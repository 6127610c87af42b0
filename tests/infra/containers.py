"""Services of infra/compose.yaml as processes of this machine, each in namespaces of its own; root only.

What a container would have, they have: a network address and name of their own and the others' names to find them by,
the volumes at their paths, a root that is read only where the file says so, no capabilities, an own /tmp/ray and
/dev/shm, and the environment of image and file and nothing else. With the built image they have its root and the file's
user, too; without it they run this machine's Python and the checkout's code, as root. Not so: the limits of CPUs and
memory. All ends with the process of the test, however it ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compose_file import target_of
from hosts import Namespace, require_namespaces

__all__ = ["Container", "Network", "require_namespaces"]

NO_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
# In the container's mount namespace these are empty and hold the mount points of its volumes.
OWN_FOLDERS = ("/srv", "/var/cache", "/var/lib")


class Network:
    """Containers that reach each other by name."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, list(names)
        self.switch = Namespace()
        self.switch("ip", "link", "add", "bridge", "type", "bridge")
        self.switch("ip", "address", "add", "10.78.0.1/24", "dev", "bridge")
        self.switch("ip", "link", "set", "bridge", "up")
        self.containers: dict[str, Container] = {}

    def address(self, name: str) -> str:
        return f"10.78.0.{10 + self.names.index(name)}"

    def hosts(self) -> str:
        lines = [f"{self.address(name)} {name}" for name in self.names]
        return "\n".join(["127.0.0.1 localhost", *lines]) + "\n"

    def close(self) -> None:
        for container in self.containers.values():
            container.close()
        self.switch.close()


class Container:
    """One service's namespaces, with its volumes in place."""

    def __init__(
        self,
        network: Network,
        name: str,
        service: Mapping[str, Any],
        volumes: Mapping[str, Path],
        root: Path | None = None,
    ) -> None:
        """
        Args:
            volumes: where each volume's source lies on this machine; others are left out.
            root: the image's root filesystem; this machine's own when None.
        """
        self.name, self.service, self._network, self._root = name, service, network, root
        self.python = sys.executable if root is None else "python"
        self.log = network.folder / f"{name}.log"
        self.namespace = Namespace()
        network.containers[name] = self
        self._join(network)
        if root is None:
            self._mount_here(network.folder / name)
        else:
            self._mount_image(root)
        for source, target, read_only in map(target_of, service.get("volumes", ())):
            if source in volumes:
                self._mount_volume(volumes[source], f"{root or ''}{target}", read_only)
        if service.get("read_only"):
            self.namespace("mount", "-o", "remount,bind,ro", str(root or "/"))

    def _mount_here(self, own: Path) -> None:
        run = self.namespace
        (own / "ray").mkdir(parents=True)
        Path("/tmp/ray").mkdir(exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", "size=2g", "shm", "/dev/shm")
        # /tmp as it is, since the test's own files lie there; but Ray's sessions are the container's own.
        run("mount", "--bind", "/tmp", "/tmp")
        run("mount", "--bind", str(own / "ray"), "/tmp/ray")
        for folder in OWN_FOLDERS:
            run("mount", "-t", "tmpfs", "none", folder)
        run("mkdir", "-p", "/var/lib/ganpipe")

    def _mount_image(self, root: Path) -> None:
        """The image's files, and what every container has beside them."""
        run = self.namespace
        run("mount", "--bind", str(root), str(root))
        run("mount", "-t", "proc", "proc", f"{root}/proc")
        for folder in ("/dev", "/sys"):
            run("mount", "--rbind", folder, f"{root}{folder}")
        run("mount", "-t", "tmpfs", "-o", "size=2g", "shm", f"{root}/dev/shm")
        for place in self.service.get("tmpfs", ()):
            target, _, options = place.partition(":")
            run("mount", "-t", "tmpfs", "-o", options, "none", f"{root}{target}")
        for name in ("hosts", "resolv.conf"):
            run("mount", "--bind", f"/etc/{name}", f"{root}/etc/{name}")

    def _mount_volume(self, source: Path, target: str, read_only: bool) -> None:
        self.namespace("mkdir", "-p", target)
        self.namespace("mount", "--bind", str(source), target)
        if read_only:
            self.namespace("mount", "-o", "remount,bind,ro", target)

    def _join(self, network: Network) -> None:
        run, port = self.namespace, f"to-{network.names.index(self.name)}"
        link = ["link", "add", "eth0", "netns", str(run.pid), "type", "veth", "peer", "name", port]
        subprocess.run(["ip", *link, "netns", str(network.switch.pid)], check=True)
        network.switch("ip", "link", "set", port, "master", "bridge", "up")
        run("ip", "link", "set", "lo", "up")
        run("ip", "address", "add", f"{network.address(self.name)}/24", "dev", "eth0")
        run("ip", "link", "set", "eth0", "up")
        run("ip", "route", "add", "default", "via", "10.78.0.1")
        run("hostname", self.name)
        hosts = network.folder / "hosts"
        hosts.write_text(network.hosts())
        run("mount", "--bind", str(hosts), "/etc/hosts")
        # Names that are not there are refused at once, as by Compose's name server, instead of after a time-out.
        (network.folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        run("mount", "--bind", str(network.folder / "resolv.conf"), "/etc/resolv.conf")

    def environment(self, image: Mapping[str, str], **variables: str) -> dict[str, str]:
        """The image's, the service's, and a PATH to the commands of the image or of the Python that runs the tests."""
        own = "/venv/bin" if self._root else str(Path(sys.executable).parent)
        path = os.pathsep.join([own, "/usr/local/bin", "/usr/bin", "/bin"])
        return {"PATH": path, "LANG": "C.UTF-8", **image, **self.service.get("environment", {}), **variables}

    def start(
        self, command: Sequence[str], variables: Mapping[str, str], folder: str = "/", user: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a command, its output in `log`."""
        dropped = NO_CAPABILITIES if self.service.get("cap_drop") == ["ALL"] else ()
        inside = self._inside([*user, *dropped, *command], folder, entrypoint=True)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.namespace.command(inside), env=dict(variables), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _inside(self, command: Sequence[str], folder: str, entrypoint: bool = False) -> list[str]:
        """What runs a command in the service's root, as its user."""
        there = ["sh", "-c", 'cd "$0" && exec "$@"', folder, *command]
        if self._root is None:
            return there
        user, _, group = str(self.service["user"]).partition(":")
        as_user = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *NO_CAPABILITIES]
        return ["/usr/sbin/chroot", str(self._root), *as_user, *(["tini", "-s", "--"] if entrypoint else []), *there]

    def run(
        self, *command: str, variables: Mapping[str, str], folder: str = "/srv/ganpipe", timeout: float = 300
    ) -> str:
        """Run a command to its end, as `docker compose exec` does; what it prints."""
        inside = self.namespace.command(self._inside(command, folder))
        done = subprocess.run(inside, env=dict(variables), capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def wait_healthy(self, process: subprocess.Popen[bytes], seconds: float = 300) -> None:
        """Return once the service's own healthcheck succeeds."""
        kind, *check = self.service["healthcheck"]["test"]
        assert kind == "CMD"
        deadline = time.monotonic() + seconds
        while True:
            done = subprocess.run(
                self.namespace.command(self._inside(check, "/")),
                env={"PATH": "/usr/bin:/bin"},
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                return
            told = self.log.read_text(errors="replace")[-4000:]
            assert process.poll() is None, f"{self.name} ended with {process.returncode}\n{told}"
            assert time.monotonic() < deadline, f"{self.name}: {check} fails: {done.stderr!r}\n{told}"
            time.sleep(0.5)

    def close(self) -> None:
        self.namespace.close()
