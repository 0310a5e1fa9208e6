"""What inspect pods and replicas have in common: the model's volume, the secret, tight security."""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from llm_operator.api import names
from llm_operator.api.deployment_spec import LLMDeploymentSpec
from llm_operator.reconcile.observed import EngineSettings

Json: TypeAlias = dict[str, Any]

USER_ID: Final = 65532
_CACHE_PATH: Final = "/cache"
_PVC: Final = "pvc://"
_S3: Final = "s3://"
_TOKEN_KEY: Final = "token"
# The keys of a Secret for s3://, and whether the pod may start without them.
_S3_KEYS: Final = {
    "AWS_ACCESS_KEY_ID": False,
    "AWS_SECRET_ACCESS_KEY": False,
    "AWS_SESSION_TOKEN": True,
    "AWS_REGION": True,
    "AWS_ENDPOINT_URL": True,
    "AWS_ALLOW_HTTP": True,
}


@dataclass(frozen=True)
class ModelAccess:
    """How a container gets at the model.

    argument  what `llm-engine` is given: a path for pvc://, the URI itself for hf:// and s3://
    """

    argument: str
    volumes: tuple[Json, ...]
    mounts: tuple[Json, ...]
    env: tuple[Json, ...]


def model_access(spec: LLMDeploymentSpec) -> ModelAccess:
    """Return the volumes, mounts and environment through which the model is read."""
    source = spec.model.source
    if source.startswith(_PVC):
        claim, _, path = source.removeprefix(_PVC).partition("/")
        volume = {"name": "model", "persistentVolumeClaim": {"claimName": claim}}
        mount = {"name": "model", "mountPath": names.PVC_MOUNT_PATH, "readOnly": True}
        argument = f"{names.PVC_MOUNT_PATH}/{path}".rstrip("/")
        return ModelAccess(argument, (volume,), (mount,), ())
    env = _s3_env(spec) if source.startswith(_S3) else _hub_env(spec)
    volume = {"name": "cache", "emptyDir": {}}
    mount = {"name": "cache", "mountPath": _CACHE_PATH}
    return ModelAccess(source, (volume,), (mount,), tuple(env))


def _hub_env(spec: LLMDeploymentSpec) -> list[Json]:
    env: list[Json] = [{"name": "HF_HOME", "value": f"{_CACHE_PATH}/huggingface"}]
    if spec.model.secret_ref:
        reference = {"name": spec.model.secret_ref.name, "key": _TOKEN_KEY}
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    return env


def _s3_env(spec: LLMDeploymentSpec) -> list[Json]:
    env: list[Json] = [{"name": "LLM_ENGINE_CACHE", "value": f"{_CACHE_PATH}/models"}]
    if not spec.model.secret_ref:  # a public bucket, never the node's own credentials
        env.append({"name": "AWS_SKIP_SIGNATURE", "value": "true"})
    else:
        for key, optional in _S3_KEYS.items():
            reference = {"name": spec.model.secret_ref.name, "key": key, "optional": optional}
            env.append({"name": key, "valueFrom": {"secretKeyRef": reference}})
    return env


def restricted_container(name: str, settings: EngineSettings, access: ModelAccess) -> Json:
    """Return a container that the restricted Pod Security standard admits; /tmp is writable."""
    return {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "env": [{"name": "HOME", "value": "/tmp"}, *access.env],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *access.mounts],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def restricted_pod(
    container: Json, spec: LLMDeploymentSpec, settings: EngineSettings, access: ModelAccess
) -> Json:
    """Return the pod spec around a container: no token, no root, the user's place and priority."""
    pod: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *access.volumes],
    }
    template = spec.template
    if settings.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.pull_secrets]
    if template.node_selector:
        pod["nodeSelector"] = dict(template.node_selector)
    if template.tolerations:
        pod["tolerations"] = [toleration.to_wire() for toleration in template.tolerations]
    if template.priority_class_name:
        pod["priorityClassName"] = template.priority_class_name
    return pod
