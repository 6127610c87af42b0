"""infra/k8s: valid against Kubernetes's own schemas, and what no schema asks for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from compose_file import INFRA
from kuberay import SCHEMAS, clusters_of, templates_of
from wording import PINNED, check_command, secret_names

VERSIONS = ("1.30.0", "1.34.0", kubernetes_validate.latest_version())
K8S = INFRA / "k8s"
FILES = sorted(path for path in K8S.glob("*.yaml") if path.name != "kustomization.yaml")


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in FILES:
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            yield f"{path.stem}-{document['kind']}", document


ALL = list(manifests())
each = pytest.mark.parametrize("manifest", [m for _, m in ALL], ids=[name for name, _ in ALL])


def templates(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """All pod templates of a manifest."""
    if manifest["kind"] in SCHEMAS:
        return templates_of(manifest)
    found = manifest.get("spec", {}).get("template")
    return [found] if found else []


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any], bool]]:
    """(name, container, pod spec, whether it ends before the others start)."""
    for name, manifest in ALL:
        for template in templates(manifest):
            spec = template["spec"]
            for key in ("initContainers", "containers"):
                for container in spec.get(key, ()):
                    yield f"{name}-{container['name']}", container, spec, key == "initContainers"


CONTAINERS = list(containers())
each_container = pytest.mark.parametrize(
    ("container", "pod", "passing"), [c[1:] for c in CONTAINERS], ids=[c[0] for c in CONTAINERS]
)


@each
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_it(manifest: dict[str, Any], version: str) -> None:
    """Unknown fields are errors, too. KubeRay's kinds: by their own schema, their pods as a Deployment's."""
    if manifest["kind"] not in SCHEMAS:
        kubernetes_validate.validate(manifest, version, strict=True)
        return
    jsonschema.validate(manifest, SCHEMAS[manifest["kind"]])
    for template in templates(manifest):
        labels = template["metadata"]["labels"]
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "x"},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        }
        kubernetes_validate.validate(deployment, version, strict=True)


def test_the_schemas_do_refuse() -> None:
    (deployment,) = [m for name, m in ALL if name == "mlflow-Deployment"]
    broken = deepcopy(deployment)
    broken["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="resource"):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)
    (cluster,) = [m for name, m in ALL if name == "ray-cluster-RayCluster"]
    broken = deepcopy(cluster)
    broken["spec"]["workerGroupSpecs"][0]["rayStartParams"]["num-cpus"] = 8
    with pytest.raises(jsonschema.ValidationError, match="8 is not of type 'string'"):
        jsonschema.validate(broken, SCHEMAS["RayCluster"])


@each_container
def test_every_container_is_pinned_bounded_watched_and_unprivileged(
    container: dict[str, Any], pod: dict[str, Any], passing: bool
) -> None:
    assert PINNED.search(container["image"]), container["image"]
    resources = container["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert {"cpu", "memory"} <= set(resources["limits"])
    probes = {"startupProbe", "readinessProbe", "livenessProbe"}
    assert passing or probes <= set(container), "a container that stays has all three probes"
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False, "nothing here talks to Kubernetes"


@each_container
def test_what_is_mounted_and_referred_to_is_there(
    container: dict[str, Any], pod: dict[str, Any], passing: bool
) -> None:
    claims = [m for _, m in ALL if m["kind"] == "PersistentVolumeClaim"]
    sets = [m for _, m in ALL if m["kind"] == "StatefulSet"]
    named = {volume["name"] for volume in pod["volumes"]}
    named |= {claim["metadata"]["name"] for s in sets for claim in s["spec"]["volumeClaimTemplates"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= named
    for volume in pod["volumes"]:
        if "persistentVolumeClaim" in volume:
            assert volume["persistentVolumeClaim"]["claimName"] in {c["metadata"]["name"] for c in claims}
        if "configMap" in volume:
            assert volume["configMap"]["name"] in configured()
    for source in container.get("envFrom", ()):
        assert source["configMapRef"]["name"] in configured()
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        port = container.get(kind, {}).get("httpGet", {}).get("port")
        assert port is None or isinstance(port, int) or port in ports


def configured() -> dict[str, dict[str, str]]:
    return {m["metadata"]["name"]: m["data"] for _, m in ALL if m["kind"] == "ConfigMap"}


@each_container
def test_secrets_are_references_to_what_the_readme_tells_to_make(
    container: dict[str, Any], pod: dict[str, Any], passing: bool
) -> None:
    made = secrets_of_the_readme()
    for variable in container.get("env", ()):
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference is not None:
            assert reference["key"] in made[reference["name"]]
        assert (reference is not None) == (variable["name"] in secret_names()), variable
    assert not set(configured()["ganpipe"]) & secret_names()


def secrets_of_the_readme() -> dict[str, set[str]]:
    """Keys by Secret, from the `kubectl create secret` commands of infra/README.md."""
    text = (INFRA / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in re.findall(r"kubectl .*create secret generic.*", text):
        name = re.search(r"create secret generic (\S+)", line)
        assert name is not None
        found[name[1]] = set(re.findall(r"--from-literal=(\w+)=", line))
        # A value on a command line would stay in the shell's history: it is read from the environment.
        assert all(value.startswith('"$') for value in re.findall(r"--from-literal=\w+=(\S+)", line)), line
    return found


@each_container
def test_commands_exist(container: dict[str, Any], pod: dict[str, Any], passing: bool) -> None:
    check_command(
        [*container.get("command", ()), *container.get("args", ())], entrypoint="postgres" in container["image"]
    )


def test_the_job_runs_what_exists() -> None:
    (job,) = [m for _, m in ALL if m["kind"] == "RayJob"]
    check_command(["sh", "-c", job["spec"]["entrypoint"]])


def test_addresses_lead_to_services_that_are_there() -> None:
    services = {m["metadata"]["name"]: m["spec"] for _, m in ALL if m["kind"] == "Service"}
    ports = {name: {port["port"] for port in spec["ports"]} for name, spec in services.items()}
    (cluster,) = [m for _, m in ALL if m["kind"] == "RayCluster"]
    # KubeRay makes this one, with the head container's ports.
    head = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    ports[f"{cluster['metadata']['name']}-head-svc"] = {port["containerPort"] for port in head["ports"]}
    texts = [path.read_text(encoding="utf-8") for path in FILES]
    found = set(re.findall(r"(?:://(?:\w+@)?|RAY_ADDRESS: )([a-z-]+):(\d+)", "\n".join(texts)))
    assert {name for name, _ in found} == {"mlflow", "prefect-server", "postgres", "ganpipe-head-svc"}
    for name, port in found:
        assert int(port) in ports[name], name
    for name, spec in services.items():
        selected = [
            template
            for _, manifest in ALL
            for template in templates(manifest)
            if spec["selector"].items() <= template["metadata"]["labels"].items()
        ]
        (template,) = selected
        offered = {port["name"] for c in template["spec"]["containers"] for port in c.get("ports", ())}
        assert {port["targetPort"] for port in spec["ports"]} <= offered, name


def test_ray_is_the_locks_version_and_its_cpus_are_the_pods() -> None:
    lock = (INFRA.parent / "requirements.lock").read_text(encoding="utf-8")
    (version,) = re.findall(r"^ray==(.+)$", lock, re.MULTILINE)
    for _, manifest in ALL:
        if manifest["kind"] in SCHEMAS:
            for cluster in clusters_of(manifest):
                assert cluster["rayVersion"] == version
                assert cluster["authOptions"]["mode"] == "token"
                for group in cluster["workerGroupSpecs"]:
                    limit = group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
                    assert group["rayStartParams"]["num-cpus"] == limit


def test_kustomize_lists_every_file_but_the_job() -> None:
    listed = yaml.safe_load((K8S / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    assert sorted([*listed, "ray-job.yaml"]) == [path.name for path in FILES]
    assert all((K8S / name).exists() for name in listed)


def test_all_lies_in_one_namespace() -> None:
    places = {m["metadata"].get("namespace") for _, m in ALL if m["kind"] != "Namespace"}
    (namespace,) = [m["metadata"]["name"] for _, m in ALL if m["kind"] == "Namespace"]
    assert places == {namespace}
