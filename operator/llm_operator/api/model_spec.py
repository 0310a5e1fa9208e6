"""Which model an `LLMDeployment` serves, and where its weights are."""

from typing import Annotated, Final, Self

from pydantic import ConfigDict, Field, model_validator

from llm_operator.api.pod_template import DNS_NAME, OBJECT_NAME
from llm_operator.api.rules import Rule, rules
from llm_operator.api.scalars import Text
from llm_operator.api.wire import Wire

_SEGMENT: Final = "[A-Za-z0-9][A-Za-z0-9._-]*"
_HF: Final = f"hf://{_SEGMENT}(/{_SEGMENT})?(@{_SEGMENT}(/{_SEGMENT})*)?"
# A segment never begins with a dot, so no path can climb out of its volume or bucket.
_PATH: Final = "(/[A-Za-z0-9_][A-Za-z0-9._-]*)*"
_PVC: Final = f"pvc://{DNS_NAME}{_PATH}"
_S3: Final = f"s3://{DNS_NAME}{_PATH}"

MODEL_SOURCE: Final = Text(
    form=f"^({_HF}|{_PVC}|{_S3})$",
    allowed="hf://owner/name, hf://owner/name@revision, s3://bucket/path or pvc://claim/path",
    at_most=512,
)
SERVED_NAME: Final = Text(
    form="^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$",
    allowed="letters, digits and . _ - / with a letter or digit at both ends",
    at_most=128,
)


class SecretRef(Wire):
    """A Secret in the namespace of the LLMDeployment; no other can be named."""

    name: Annotated[str, OBJECT_NAME] = Field(
        description="Name of the Secret.", examples=["hf-token"]
    )


_SECRET_RULE: Final = Rule(
    "!has(self.secretRef) || !self.source.startsWith('pvc://')",
    "may be set only where source is hf:// or s3://: a volume needs no token",
    field_path=".secretRef",
)


class Model(Wire):
    """Which model to serve, and under which name."""

    model_config = ConfigDict(json_schema_extra=rules(_SECRET_RULE))

    source: Annotated[str, MODEL_SOURCE] = Field(
        description="Where the weights (safetensors or GGUF) are: hf://owner/name[@revision] on a"
        " Hugging Face hub, s3://bucket/path in an S3-compatible store, or pvc://claim/path in a"
        " PersistentVolumeClaim of this namespace.",
        examples=["pvc://models/smollm2-135m"],
    )
    served_name: Annotated[str, SERVED_NAME] | None = Field(
        default=None,
        description="Name that clients send as `model`; the name of this object where absent. The"
        " first LLMDeployment of the cluster to claim a name keeps it.",
        examples=["smollm2"],
    )
    secret_ref: SecretRef | None = Field(
        default=None,
        description="Secret of this namespace that opens the model: for hf:// its key `token`, for"
        " s3:// its keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and where needed"
        " AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL and AWS_ALLOW_HTTP.",
        examples=[{"name": "hf-token"}],
    )
    max_context_tokens: int | None = Field(
        default=None,
        ge=16,
        le=10_000_000,
        description="Longest prompt plus answer of one request, in tokens; what the model was"
        " trained for where absent. Fewer tokens need less memory.",
        examples=[8192],
    )

    @model_validator(mode="after")
    def _secret_is_of_use(self) -> Self:
        if self.secret_ref and self.source.startswith("pvc://"):
            raise ValueError(f"secretRef {_SECRET_RULE.allowed}")
        return self
