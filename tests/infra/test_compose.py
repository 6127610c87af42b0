"""infra/compose.yaml and infra/Dockerfile: valid, pinned, bounded, without a secret, and consistent in themselves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from compose_file import (
    COMPOSE,
    INFRA,
    ROOT,
    Missing,
    dotenv,
    image_environment,
    instructions,
    interpolated,
    raw,
    services,
    target_of,
)
from wording import PINNED, check_command, secret_names, secrets

from ganpipe import environment

GIVEN = {name: f"value-of-{name}" for name in secrets()}
SERVICES = services(GIVEN)
each = pytest.mark.parametrize("name", SERVICES)
OWN = [name for name, service in SERVICES.items() if service["image"].startswith("ganpipe:")]


def test_the_file_fits_the_compose_specification() -> None:
    """The specification's schema as it was in October 2021 (tests/infra/compose-spec.md): `name` came later."""
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text(encoding="utf-8"))
    known = {**raw()}
    assert re.fullmatch(r"[a-z0-9_-]+", known.pop("name"))
    validator = jsonschema.Draft201909Validator(schema)
    assert [f"{list(error.path)}: {error.message}" for error in validator.iter_errors(known)] == []
    known["services"]["mlflow"] = {**known["services"]["mlflow"], "comand": []}
    assert list(validator.iter_errors(known)), "the schema refuses nothing"


@each
def test_every_service_is_pinned_bounded_watched_and_unprivileged(name: str) -> None:
    service = SERVICES[name]
    assert PINNED.search(service["image"]), service["image"]
    for kind in ("limits", "reservations"):
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"][kind])
    if service["restart"] == "no":
        assert "healthcheck" not in service, "it ends by itself"
    else:
        assert service["healthcheck"]["test"][0] == "CMD", "no shell, and so nothing to quote"
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    if name in OWN:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        uid, _, gid = service["user"].partition(":")
        assert int(uid) > 0
        assert int(gid) > 0
        assert {mount.partition(":")[0] for mount in service["tmpfs"]} == {"/tmp", image_environment()["HOME"]}


@each
def test_ports_are_open_on_loopback_only(name: str) -> None:
    for port in SERVICES[name].get("ports", ()):
        address, _, inside = re.fullmatch(r"([\d.]+):(\d+):(\d+)", port).groups()  # type: ignore[union-attr]
        assert address == "127.0.0.1"
        assert any(inside in word for word in map(str, SERVICES[name]["command"]))


def test_secrets_are_named_and_never_there() -> None:
    example = dotenv(INFRA / ".env.example")
    assert secrets() == {
        "POSTGRES_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "PREFECT_AUTH",
    }  # fmt: skip
    for name, service in raw()["services"].items():
        for variable, value in service.get("environment", {}).items():
            if variable in secret_names():
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), f"{name}: {variable} holds a value"
        # Whoever lists processes sees command lines.
        words = json.dumps([service["command"], service.get("healthcheck", {})])
        assert not [secret for secret in secrets() if secret in words], name
    used = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE.read_text(encoding="utf-8")))
    assert used == set(example), "infra/.env.example and infra/compose.yaml name different variables"
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "infra/.env"], cwd=ROOT, check=False)
    assert ignored.returncode == 0, "infra/.env could be committed"


@pytest.mark.parametrize("missing", sorted(secrets()))
def test_without_a_secret_nothing_starts(missing: str) -> None:
    with pytest.raises(Missing, match=rf"{missing}: set it in infra/\.env"):
        services({name: value for name, value in GIVEN.items() if name != missing})


def test_how_variables_are_filled_in() -> None:
    variables = {"A": "1", "EMPTY": ""}
    told = {"x": ["${A}-${B:-2}", "$${A}", "${EMPTY:-3}", 4]}
    assert interpolated(told, variables) == {"x": ["1-2", "${A}", "3", 4]}
    with pytest.raises(Missing, match="EMPTY: why"):
        interpolated("${EMPTY:?why}", variables)


@each
def test_commands_and_probes_exist(name: str) -> None:
    service = SERVICES[name]
    check_command(service["command"], entrypoint=name not in OWN)
    check_command(service.get("healthcheck", {}).get("test", ["CMD"])[1:])


def test_addresses_lead_to_services_that_are_there() -> None:
    listening = {
        "postgres": "5432",
        "object-store": option(SERVICES["object-store"], "-s3.port"),
        "mlflow": option(SERVICES["mlflow"], "--port"),
        "prefect-server": option(SERVICES["prefect-server"], "--port"),
    }
    ray = {"gcs": option(SERVICES["ray-head"], "--port"), "jobs": option(SERVICES["ray-head"], "--dashboard-port")}
    found = set(re.findall(r"(?:://(?:\w+@)?|--address=|RAY_ADDRESS\": \")([a-z][a-z-]+):(\d+)", json.dumps(SERVICES)))
    assert found == set(listening.items()) | {("ray-head", port) for port in ray.values()}
    bucket = option(SERVICES["object-store"], "-bucket")
    assert option(SERVICES["mlflow"], "--artifacts-destination").startswith(f"s3://{bucket}/")
    assert "mlflow:" + listening["mlflow"] in SERVICES["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"]
    made = set(re.findall(r"CREATE DATABASE (\w+)", (INFRA / "postgres/databases.sql").read_text(encoding="utf-8")))
    urls = json.dumps([SERVICES["mlflow"]["command"], SERVICES["prefect-server"]["environment"]])
    assert set(re.findall(r"@postgres:5432/(\w+)", urls)) == made


def option(service: dict[str, Any], name: str) -> str:
    """Value of `name=value` among the command's words."""
    (value,) = [word.split("=", 1)[1] for word in service["command"] if word.startswith(f"{name}=")]
    return str(value)


def test_all_are_told_the_same() -> None:
    """Who talks to S3, to Ray, to MLflow or to Prefect is told so in the same words as everybody else."""
    for variable in (
        "AWS_ENDPOINT_URL",
        "AWS_DEFAULT_REGION",
        "RAY_AUTH_MODE",
        "MLFLOW_TRACKING_URI",
        "PREFECT_API_URL",
    ):
        values = {s["environment"][variable] for s in SERVICES.values() if variable in s["environment"]}
        assert len(values) == 1, variable
    aws = {"AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    for name in ("mlflow", "ray-head", "ray-worker", "prefect-worker"):
        assert aws <= set(SERVICES[name]["environment"]), name
    for name in ("ray-head", "ray-worker", "prefect-worker"):
        assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI"} <= set(SERVICES[name]["environment"]), name
    assert {"RAY_ADDRESS", "PREFECT_API_URL"} <= set(SERVICES["prefect-worker"]["environment"])


def test_kubernetes_is_told_the_same() -> None:
    """The manifests name the same commands, images and settings; only addresses of their own differ."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (INFRA / "k8s").glob("*.yaml")}
    documents = [d for text in texts.values() for d in yaml.safe_load_all(text)]
    by_name = {d["metadata"]["name"]: d for d in documents if d["kind"] in {"Deployment", "StatefulSet"}}
    for name in ("mlflow", "prefect-server", "prefect-worker", "postgres"):
        (container,) = by_name[name]["spec"]["template"]["spec"]["containers"]
        assert container["args"] == SERVICES[name]["command"], name
        assert container["image"] == SERVICES[name]["image"], name


def test_volumes_and_what_they_show_are_there() -> None:
    named = set(raw()["volumes"])
    for service in SERVICES.values():
        for source, target, _ in map(target_of, service.get("volumes", ())):
            assert target.startswith("/")
            assert source in named or (INFRA / source).exists(), source
        for needed in service.get("depends_on", {}):
            assert needed in SERVICES


# --- the image


def test_the_dockerfile_installs_the_locks_versions_as_nobody_in_particular() -> None:
    steps = instructions()
    bases = [text.partition(" ")[0] for instruction, text in steps if instruction == "FROM"]
    (default,) = [text.partition("=")[2] for instruction, text in steps if instruction == "ARG"]
    assert set(bases) == {"${PYTHON_IMAGE}"}
    assert PINNED.search(default)
    python = re.search(r"python:(\d+\.\d+)", default)
    assert python is not None
    assert f"PYTHON ?= python{python[1]}" in (ROOT / "Makefile").read_text(encoding="utf-8")
    installs = [text for instruction, text in steps if instruction == "RUN" and "pip install" in text]
    assert all("--constraint requirements.lock" in text or "--no-deps" in text for text in installs)
    let_in = set((INFRA / "Dockerfile.dockerignore").read_text(encoding="utf-8").split())
    assert "*" in let_in, "a checkout's data and secrets would go to the builder"
    last = [text for instruction, text in steps if instruction == "USER"]
    assert last == ["1000:1000"]
    assert steps[-3][0] == "USER", "nothing is done as root after it but the entrypoint"
    for instruction, text in steps:
        if instruction == "COPY" and "--from" not in text:
            *sources, _ = text.split()
            assert all((ROOT / source).exists() for source in sources), text
            assert {f"!{source}" for source in sources} <= let_in, text
    assert environment.NO_TELEMETRY.items() <= image_environment().items()


def test_what_the_image_installs_is_in_the_lock(tmp_path: Path) -> None:
    """Every requirement of `.[openmoji,postgresql]`, directly or not, is met by a version that the lock names."""
    from importlib.metadata import distribution

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lock = dict(
        line.split("==")
        for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
        if "==" in line and not line.startswith("#")
    )
    locked = {canonicalize_name(name): version for name, version in lock.items()}
    installed = next(text for instruction, text in instructions() if instruction == "RUN" and "--constraint" in text)
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", installed)
    waiting, seen = [("ganpipe", frozenset(extras.split(",")))], set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        for text in requirements_of(name, distribution):
            needed = Requirement(text)
            contexts = [{"extra": extra} for extra in wanted] or [{"extra": ""}]
            if needed.marker is not None and not any(needed.marker.evaluate(c) for c in contexts):
                continue
            key = canonicalize_name(needed.name)
            if key in {"pip", "setuptools"}:  # of every environment, and so of no lock
                continue
            assert key in locked, f"{name} needs {needed}, which the lock does not name"
            assert needed.specifier.contains(locked[key], prereleases=True), f"{name} needs {needed}"
            waiting.append((key, frozenset(needed.extras)))


def requirements_of(name: str, distribution: Any) -> list[str]:
    """As pyproject.toml or the installed package says."""
    if name != "ganpipe":
        return list(distribution(name).requires or ())
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [
        f"{text}; extra == '{extra}'" for extra, texts in project["optional-dependencies"].items() for text in texts
    ]
    return [*project["dependencies"], *extras]


@pytest.mark.slow
def test_the_images_package_has_all_that_the_checkout_has(tmp_path: Path) -> None:
    """The Dockerfile's last install, into an empty folder: code, templates and the command are there."""
    for source in ("pyproject.toml", "README.md", "ganpipe", "pipelines"):
        subprocess.run(["cp", "-r", str(ROOT / source), str(tmp_path)], check=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(tmp_path / "site"), "."], cwd=tmp_path, check=True)
    code = "import ganpipe.cli, pipelines, sys; print(ganpipe.cli.__file__); sys.exit(ganpipe.cli.main(['schema']))"
    variables = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "site", env=variables, capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines()[0].startswith(str(tmp_path / "site"))
    for folder in ("reporting/templates", "serving/page"):
        kept = {path.name for path in (tmp_path / "site/ganpipe" / folder).iterdir() if path.is_file()}
        assert {path.name for path in (ROOT / "ganpipe" / folder).iterdir() if path.is_file()} <= kept
    assert (tmp_path / "site/bin/ganpipe").exists()
