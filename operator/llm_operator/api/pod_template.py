"""What a person may add to the pods of the replicas: a short list, not a PodSpec."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from llm_operator.api.names import GROUP
from llm_operator.api.rules import Rule, rules
from llm_operator.api.scalars import ResourceAmount, Text
from llm_operator.api.wire import Wire

_DNS_LABEL: Final = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
DNS_NAME: Final = f"{_DNS_LABEL}([.]{_DNS_LABEL})*"
OBJECT_NAME: Final = Text(
    form=f"^{DNS_NAME}$",
    allowed="the name of an object: lower-case letters, digits, - and .",
    at_most=253,
)
_KEY_PREFIX: Final = "([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?"
_KEY_NAME: Final = "[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
KEY_FORM: Final = f"^{_KEY_PREFIX}{_KEY_NAME}$"
LABEL_VALUE_FORM: Final = f"^({_KEY_NAME})?$"
RESERVED_KEYS: Final = (f"{GROUP}/", "app.kubernetes.io/")
MAX_ENTRIES: Final = 32

_KEYS_RULE: Final = Rule(
    f"self.all(key, size(key) <= 317 && key.matches('{KEY_FORM}'))",
    "keys must be letters, digits and . _ -, with a DNS name and / before them or not",
    f"self.filter(key, size(key) > 317 || !key.matches('{KEY_FORM}'))",
)
_LABEL_VALUES_RULE: Final = Rule(
    f"self.all(key, self[key].matches('{LABEL_VALUE_FORM}'))",
    "values must be at most 63 letters, digits and . _ -",
    f"self.filter(key, !self[key].matches('{LABEL_VALUE_FORM}'))",
    but="; wrong at ",
)
_OWN_KEY: Final = " || ".join(f"key.startsWith('{prefix}')" for prefix in RESERVED_KEYS)
_RESERVED_RULE: Final = Rule(
    f"!self.exists(key, {_OWN_KEY})",
    f"keys that begin with {' or '.join(RESERVED_KEYS)} belong to the operator",
    f"self.filter(key, {_OWN_KEY})",
    but="; remove ",
)

LabelValue = Annotated[str, Field(max_length=63)]
Labels = Annotated[dict[str, LabelValue], Field(max_length=MAX_ENTRIES)]
Annotations = Annotated[
    dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=MAX_ENTRIES)
]


class TolerationOperator(StrEnum):
    """How a toleration meets a taint."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


_TOLERATION_RULES: Final = rules(
    Rule(
        "has(self.key) || has(self.operator) && self.operator == 'Exists'",
        "must have a key, or operator Exists to bear every taint",
    ),
    Rule(
        "!has(self.value) || self.value == '' || !has(self.operator) || self.operator == 'Equal'",
        "may be set only where operator is Equal",
        field_path=".value",
    ),
    Rule(
        "!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
        "may be set only where effect is NoExecute",
        field_path=".tolerationSeconds",
    ),
)


class Toleration(Wire):
    """A taint of nodes that replicas bear."""

    model_config = ConfigDict(json_schema_extra=_TOLERATION_RULES)

    key: Annotated[str, Field(max_length=317)] | None = Field(
        default=None,
        description="Key of the taint; every key where absent, and then operator must be Exists.",
        examples=["nvidia.com/gpu"],
    )
    operator: TolerationOperator | None = Field(
        default=None,
        description="Exists: any value. Equal, as where absent: this value.",
        examples=["Exists"],
    )
    value: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="Value of the taint, for Equal.", examples=["present"]
    )
    effect: TaintEffect | None = Field(
        default=None,
        description="Effect of the taint; every effect where absent.",
        examples=["NoSchedule"],
    )
    toleration_seconds: int | None = Field(
        default=None,
        ge=0,
        le=86_400,
        description="How long to stay under a NoExecute taint; for ever where absent.",
        examples=[300],
    )


Tolerations = Annotated[
    list[Toleration],
    Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
]


RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")


class ResourceList(Wire):
    """Amounts of the resources of a node. Accelerators are asked for by their class, not here."""

    cpu: Annotated[str, ResourceAmount()] | None = Field(
        default=None, description="CPU cores.", examples=["2"]
    )
    memory: Annotated[str, ResourceAmount()] | None = Field(
        default=None, description="Memory of the host.", examples=["4Gi"]
    )
    ephemeral_storage: Annotated[str, ResourceAmount()] | None = Field(
        default=None,
        alias="ephemeral-storage",
        description="Local disk, for weights that are downloaded.",
        examples=["20Gi"],
    )


def _request_within_limit(name: str) -> Rule:
    """Return the rule that Kubernetes would otherwise only tell the replicas' pods."""
    key = name.replace("-", "__dash__")  # how CEL spells it
    request, limit = f"self.requests.{key}", f"self.limits.{key}"
    given = f"has(self.requests) && has(self.limits) && has({request}) && has({limit})"
    sound = f"isQuantity(string({request})) && isQuantity(string({limit}))"
    within = f"quantity(string({request})).compareTo(quantity(string({limit}))) <= 0"
    return Rule(
        f"!({given}) || !({sound}) || {within}",
        f"must be at most limits.{name}",
        f"'%s; the limit is %s'.format([{request}, {limit}])",
        field_path=f".requests.{name}" if key == name else f".requests['{name}']",
    )


class Resources(Wire):
    """CPU, memory and disk of one replica."""

    model_config = ConfigDict(
        json_schema_extra=rules(*(_request_within_limit(name) for name in RESOURCES))
    )

    requests: ResourceList | None = Field(
        default=None, description="What a node must have free.", examples=[{"cpu": "2"}]
    )
    limits: ResourceList | None = Field(
        default=None, description="What a replica may use at most.", examples=[{"memory": "4Gi"}]
    )


class PodTemplate(Wire):
    """What is added to the pods of the replicas; it grants no right that a pod would not have."""

    labels: Labels = Field(
        default={},
        description="Labels to add.",
        examples=[{"team": "search"}],
        json_schema_extra=rules(_KEYS_RULE, _LABEL_VALUES_RULE, _RESERVED_RULE),
    )
    annotations: Annotations = Field(
        default={},
        description="Annotations to add.",
        examples=[{"example.com/owner": "search"}],
        json_schema_extra=rules(_KEYS_RULE, _RESERVED_RULE),
    )
    node_selector: Labels = Field(
        default={},
        description="Labels that a node must have, besides those of the AcceleratorClass.",
        examples=[{"topology.kubernetes.io/zone": "eu-west-1a"}],
        json_schema_extra=rules(_KEYS_RULE, _LABEL_VALUES_RULE),
    )
    tolerations: Tolerations = Field(
        default=[],
        description="Taints that replicas bear, besides those of the AcceleratorClass.",
        examples=[[{"key": "nvidia.com/gpu", "operator": "Exists"}]],
    )
    priority_class_name: Annotated[str, OBJECT_NAME] | None = Field(
        default=None,
        description="Name of the PriorityClass of the pods.",
        examples=["high-priority"],
    )
    resources: Resources = Field(
        default=Resources(),
        description="CPU, memory and disk of one replica.",
        examples=[{"requests": {"cpu": "2", "memory": "4Gi"}}],
    )
