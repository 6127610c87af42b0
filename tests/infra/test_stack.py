"""The services of infra/compose.yaml, started with the file's own commands, environments, volumes and probes, and one
whole pipeline run on them: as a deployment, on a Ray cluster, with PostgreSQL behind MLflow and Prefect, files on S3.
Once with this machine's Python and the checkout's code, once in the image of infra/Dockerfile for each of two users.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from compose_file import INFRA, ROOT, image_environment, services, target_of
from containers import Container, Network, require_namespaces
from image import Built, require_tools
from postgresql import USER, initialise, own_folder, programs
from projects import Project, make_project

pytestmark = pytest.mark.slow
SECRETS = {
    "POSTGRES_PASSWORD": "postgres-secret-of-the-tests",
    "AWS_ACCESS_KEY_ID": "the-tests",
    "AWS_SECRET_ACCESS_KEY": "aws-secret-of-the-tests",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
    "PREFECT_AUTH": "admin:prefect-secret-of-the-tests",
}


@dataclass
class Stack:
    """The running services."""

    network: Network
    volumes: dict[str, Path]
    project: Project
    services: dict[str, dict[str, Any]]
    image: Built | None = None
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def container(self, name: str) -> Container:
        of_image = self.image is not None and self.services[name]["image"].startswith("ganpipe:")
        root = self.image.root if self.image is not None and of_image else None
        return Container(self.network, name, self.services[name], self.volumes, root)

    def environment(self, container: Container) -> dict[str, str]:
        """Without the image and its installed package: the checkout's code where it is mounted."""
        own = {} if self.image else {"PYTHONPATH": "/srv/ganpipe"}
        return container.environment(image_environment(), **own)

    def start(self, name: str) -> Container:
        """Start one of ganpipe's own services."""
        container = self.container(name)
        mounted = [target_of(volume)[1] for volume in container.service.get("volumes", ())]
        folder = "/srv/ganpipe" if "/srv/ganpipe" in mounted else "/"
        self.processes[name] = container.start(container.service["command"], self.environment(container), folder)
        return container


def start_postgres(stack: Stack) -> None:
    """As the image's entrypoint does: an empty volume is initialised, then the command runs."""
    service = stack.services["postgres"]
    data = stack.volumes["postgres"] / "data"
    script = next(source for source, target, _ in map(target_of, service["volumes"]) if "initdb.d" in target)
    variables = service["environment"]
    initialise(data, variables["POSTGRES_USER"], variables["POSTGRES_PASSWORD"], [INFRA / script])
    container = stack.container("postgres")
    command = [str(programs() / service["command"][0]), "-D", "/var/lib/postgresql/data/data"]
    command += ["-c", "listen_addresses=*", "-c", "unix_socket_directories=", *service["command"][1:]]
    stack.processes["postgres"] = container.start(command, container.environment({}), user=USER)
    container.wait_healthy(stack.processes["postgres"])


def start_object_store(stack: Stack) -> None:
    """moto's server stands in for SeaweedFS, which no package registry has: its port and bucket are the command's."""
    options = dict(part.lstrip("-").split("=", 1) for part in stack.services["object-store"]["command"] if "=" in part)
    container = stack.container("object-store")
    command = [sys.executable, "-m", "moto.server", "--host", options["ip.bind"], "--port", options["s3.port"]]
    stack.processes["object-store"] = container.start(command, container.environment({}))
    make = (
        "import boto3, sys, time\n"
        "for _ in range(100):\n"
        "  try: boto3.client('s3').create_bucket(Bucket=sys.argv[1]); break\n"
        "  except Exception: time.sleep(0.2)\n"
        "else: sys.exit('no S3 API')"
    )
    container.run(
        sys.executable, "-c", make, options["bucket"], folder="/",
        variables=container.environment(client_variables(stack)),
    )  # fmt: skip


def client_variables(stack: Stack) -> dict[str, str]:
    """How clients in the file find S3."""
    variables = stack.services["prefect-worker"]["environment"]
    return {name: value for name, value in variables.items() if name.startswith("AWS_")}


@pytest.fixture(scope="module")
def image() -> Iterator[Built]:
    require_tools()
    with tempfile.TemporaryDirectory(prefix="ganpipe-image-") as folder:
        os.chmod(folder, 0o755)  # users of the image walk through it
        built = Built(Path(folder))
        try:
            yield built
        finally:
            built.close()


@pytest.fixture(scope="module", params=["this machine's Python", "the image", "the image, a user without a name"])
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    require_namespaces()
    programs()
    built = request.getfixturevalue("image") if request.param.startswith("the image") else None
    user = {"this machine's Python": 0, "the image": 1000}.get(request.param, 23456)
    with tempfile.TemporaryDirectory(prefix="ganpipe-stack-") as folder:
        os.chmod(folder, 0o755)  # pytest's own folders are root's alone
        yield from run_stack(Path(folder), built, user)


def run_stack(root: Path, built: Built | None, user: int) -> Iterator[Stack]:
    project = make_project(root / "checkout")
    shutil.copytree(INFRA, project.root / "infra", ignore=shutil.ignore_patterns(".env"))
    project.set("cluster.storage_path", "s3://ganpipe/work")
    project.set("cluster.num_workers", 2)
    project.dvc("remote", "add", "--default", "store", "s3://ganpipe/dvc")
    project.commit("On the services of infra/compose.yaml")
    variables = {**SECRETS, "GANPIPE_CHECKOUT": str(project.root), "RAY_WORKER_CPUS": "2"}
    variables |= {"GANPIPE_UID": str(user), "GANPIPE_GID": str(user)}
    found = services(variables)
    volumes = {name: root / "volumes" / name for name in ("objects", "cache")}
    for folder in volumes.values():
        folder.mkdir(parents=True)
    if built is not None:
        as_in_image(built.root / "var/cache/ganpipe", volumes["cache"])
    for path in [project.root, *project.root.rglob("*")]:
        os.chown(path, user, user, follow_symlinks=False)
    volumes[str(project.root)] = project.root
    with own_folder() as data:
        stack = Stack(Network(root, list(found)), volumes | {"postgres": data}, project, found, built)
        try:
            start_all(stack)
            yield stack
        finally:
            stack.network.close()


def as_in_image(folder: Path, volume: Path) -> None:
    """A named volume begins with owner and mode of the folder that the image has at its place."""
    found = folder.stat()
    os.chown(volume, found.st_uid, found.st_gid)
    os.chmod(volume, stat.S_IMODE(found.st_mode))


def start_all(stack: Stack) -> None:
    """In the order of the file's `depends_on`."""
    start_postgres(stack)
    start_object_store(stack)
    for batch in (["mlflow", "prefect-server", "ray-head"], ["ray-worker"]):
        for container in [stack.start(name) for name in batch]:
            container.wait_healthy(stack.processes[container.name])
    deploy = stack.start("prefect-deploy")
    assert stack.processes["prefect-deploy"].wait(timeout=300) == 0, deploy.log.read_text()
    stack.start("prefect-worker").wait_healthy(stack.processes["prefect-worker"])


def test_a_deployment_runs_the_whole_pipeline_on_the_services(stack: Stack) -> None:
    worker = stack.network.containers["prefect-worker"]
    environment = stack.environment(worker)
    overrides = {"train.seed": 5}
    said = worker.run(
        "prefect", "deployment", "run", "pipeline/default", "--watch", "--flow-run-name", "on-the-services",
        "--param", f"overrides={json.dumps(overrides)}", variables=environment, timeout=600,
    )  # fmt: skip
    assert "finished successfully" in said, said
    # What it made: an experiment in the checkout, a champion in MLflow on PostgreSQL, files on S3.
    listed = worker.run("dvc", "exp", "list", "--name-only", variables=environment)
    assert listed.split() == ["on-the-services"]
    models = json.loads(worker.run("ganpipe", "models", "--json", variables=environment))
    assert "champion" in json.dumps(models)
    keys = objects(stack)
    assert [name for name in ("model.json", "generator.safetensors", "score_real.csv") if not any(
        key.startswith("mlflow/") and key.endswith(f"/{name}") for key in keys)] == []  # fmt: skip
    # Ray leaves an empty object for the folder itself.
    assert not [key for key in keys if key.startswith("work/") and key != "work/"]
    for secret in ("POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "PREFECT_AUTH"):
        logs = {path.name: path.read_text(errors="replace") for path in stack.network.folder.glob("*.log")}
        assert [name for name, text in logs.items() if SECRETS[secret] in text] == [], secret


def test_the_installation_is_checked_in_the_worker(stack: Stack) -> None:
    worker = stack.network.containers["prefect-worker"]
    said = worker.run("ganpipe", "check", variables=stack.environment(worker))
    assert "ready" in said
    if stack.image is not None:
        where = worker.run(
            "python", "-c", "import ganpipe; print(ganpipe.__file__)", folder="/", variables=stack.environment(worker)
        )
        assert where.startswith("/venv/lib/")
        identity = worker.run("id", "-u", variables=stack.environment(worker)).strip()
        assert identity == str(stack.services["prefect-worker"]["user"]).partition(":")[0]


def test_the_code_is_read_only_where_the_file_says_so(stack: Stack) -> None:
    head = stack.network.containers["ray-head"]
    for place in ("/srv/ganpipe/written", "/written", "/venv/written") if stack.image else ("/srv/ganpipe/written",):
        with pytest.raises(AssertionError, match="Read-only file system|Permission denied"):
            head.run("touch", place, folder="/", variables=stack.environment(head))


def test_the_image_holds_the_checkout_s_code(image: Built) -> None:
    (installed,) = image.root.glob("venv/lib/python3.*/site-packages")
    for package in ("ganpipe", "pipelines"):
        expected = {path.relative_to(ROOT): path.read_bytes() for path in (ROOT / package).rglob("*.py")}
        found = {path.relative_to(installed): path.read_bytes() for path in (installed / package).rglob("*.py")}
        assert found == expected


def test_the_image_says_who_runs_it_and_how(image: Built) -> None:
    assert image.configured("{{.OCIv1.Config.User}}") == "1000:1000"
    assert image.configured("{{.OCIv1.Config.Entrypoint}}") == "[tini --]"
    assert image.configured("{{.OCIv1.Config.WorkingDir}}") == "/srv/ganpipe"
    told = dict(
        line.split("=", 1) for line in image.configured("{{range .OCIv1.Config.Env}}{{println .}}{{end}}").split("\n")
    )
    assert image_environment().items() <= told.items()


def objects(stack: Stack) -> list[str]:
    """All keys in the bucket."""
    container = stack.network.containers["object-store"]
    code = "import boto3, json; print(json.dumps([item['Key'] for page in boto3.client('s3').get_paginator("
    code += "'list_objects_v2').paginate(Bucket='ganpipe') for item in page.get('Contents', ())]))"
    listed = container.run(
        sys.executable, "-c", code, folder="/", variables=container.environment(client_variables(stack))
    )
    return list(json.loads(listed))


@pytest.mark.parametrize(
    ("name", "address"),
    [("prefect-server", "127.0.0.1:4200/dashboard"), ("mlflow", "127.0.0.1:5000/"), ("ray-head", "127.0.0.1:8265/")],
)
def test_the_pages_are_served_from_a_root_that_cannot_be_written(stack: Stack, name: str, address: str) -> None:
    browser = ["wget", "-q", "-O", "-", "--header=Accept: text/html"]  # else Prefect answers a page's path with JSON
    page = stack.network.containers[name].run(*browser, f"http://{address}", variables={}, folder="/")
    assert "<html" in page.lower()


def test_both_databases_are_on_postgresql(stack: Stack) -> None:
    container = stack.network.containers["mlflow"]
    code = (
        "import json, sys, psycopg2\n"
        "for name in sys.argv[1:]:\n"
        "  with psycopg2.connect(host='postgres', user='ganpipe', dbname=name) as connection:\n"
        "    cursor = connection.cursor()\n"
        "    cursor.execute(\"select table_name from information_schema.tables where table_schema = 'public'\")\n"
        "    print(json.dumps([row[0] for row in cursor.fetchall()]))"
    )
    listed = container.run(
        container.python, "-c", code, "mlflow", "prefect", folder="/", variables=stack.environment(container)
    )
    mlflow, prefect = map(json.loads, listed.splitlines())
    assert {"registered_models", "runs"} <= set(mlflow)
    assert {"flow_run", "deployment"} <= set(prefect)
