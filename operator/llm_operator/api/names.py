"""Names that operator, gateway, chart and tests agree on."""

from typing import Final

GROUP: Final = "llm-operator.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
DEPLOYMENT_KIND: Final = "LLMDeployment"
DEPLOYMENT_PLURAL: Final = "llmdeployments"
ACCELERATOR_KIND: Final = "AcceleratorClass"
ACCELERATOR_PLURAL: Final = "acceleratorclasses"

FIELD_MANAGER: Final = "llm-operator"

# Labels on every child; an EndpointSlice inherits its Service's labels.
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "llm-operator"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
ENGINE_COMPONENT: Final = "engine"
INSPECT_COMPONENT: Final = "inspect"
GATEWAY_COMPONENT: Final = "gateway"
OPERATOR_COMPONENT: Final = "operator"
DEPLOYMENT_LABEL: Final = f"{GROUP}/deployment"  # value: metadata.name of the LLMDeployment

PAUSE_ANNOTATION: Final = f"{GROUP}/paused"  # "true" stops all action on the object
POD_DELETION_COST_ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"

ENGINE_CONTAINER: Final = "engine"
ENGINE_PORT_NAME: Final = "http"
PVC_MOUNT_PATH: Final = "/model"  # pvc://claim/path is served from /model/path
GATEWAY_PORT: Final = 8080
GATEWAY_METRICS_PORT: Final = 9090  # probes and /metrics
OPERATOR_HEALTH_PORT: Final = 8080  # kopf's /healthz and /readyz
OPERATOR_METRICS_PORT: Final = 9090
