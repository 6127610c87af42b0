"""What KubeRay's operator (1.7) takes as RayCluster and RayJob: fields, types and choices, strictly.

Written from its API reference, since its CRDs come in no package that can be had here; pod templates are checked
against Kubernetes's own schema beside this (`test_manifests.py`).
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}
FLAG = {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 0}
TEXTS = {"type": "object", "additionalProperties": TEXT}
ANY = {"type": "object"}
SERVICE_TYPES = ["ClusterIP", "NodePort", "LoadBalancer"]


def _object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": list(required),
    }


_GROUP = {"rayStartParams": TEXTS, "template": ANY, "resources": TEXTS, "labels": TEXTS}
CLUSTER = _object(
    ("headGroupSpec",),
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=_object(mode={"enum": ["disabled", "token"]}, secretName=TEXT, enableK8sTokenAuth=FLAG),
    upgradeStrategy=_object(type={"enum": ["Recreate", "None"]}),
    suspend=FLAG,
    managedBy={"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]},
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=ANY,
    gcsFaultToleranceOptions=ANY,
    networkPolicy=ANY,
    tlsOptions=_object(enabled=FLAG),
    headServiceAnnotations=TEXTS,
    headGroupSpec=_object(
        ("template", "rayStartParams"),
        serviceType={"enum": SERVICE_TYPES},
        headService=ANY,
        enableIngress=FLAG,
        **_GROUP,
    ),
    workerGroupSpecs={
        "type": "array",
        "items": _object(
            ("groupName", "template", "rayStartParams", "minReplicas", "maxReplicas"),
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            numOfHosts=COUNT,
            idleTimeoutSeconds=COUNT,
            priority={"type": "integer"},
            suspend=FLAG,
            scaleStrategy=_object(workersToDelete={"type": "array", "items": TEXT}),
            **_GROUP,
        ),
    },
)
JOB = _object(
    ("rayClusterSpec", "entrypoint"),
    rayClusterSpec=CLUSTER,
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    metadata=TEXTS,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    submitterPodTemplate=ANY,
    submitterConfig=_object(backoffLimit=COUNT),
    clusterSelector=TEXTS,
    backoffLimit=COUNT,
    activeDeadlineSeconds={"type": "integer", "minimum": 1},
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    entrypointResources=TEXT,
    suspend=FLAG,
    managedBy={"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]},
    deletionStrategy=ANY,
)
SCHEMAS = {
    kind: _object(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=ANY,
        spec=spec,
    )
    for kind, spec in {"RayCluster": CLUSTER, "RayJob": JOB}.items()
}


def clusters_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The cluster specs within a RayCluster or RayJob."""
    return [manifest["spec"]] if manifest["kind"] == "RayCluster" else [manifest["spec"]["rayClusterSpec"]]


def templates_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates within a RayCluster or RayJob."""
    return [
        group["template"]
        for cluster in clusters_of(manifest)
        for group in [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", ())]
    ]
