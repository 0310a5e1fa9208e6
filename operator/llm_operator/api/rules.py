"""Rules in CEL that the API server holds an object to, and the words it answers with."""

import json
from dataclasses import dataclass
from typing import Any, Final

KEY: Final = "x-kubernetes-validations"


@dataclass(frozen=True)
class Rule:
    """One CEL rule. The API server puts the field's path before the message.

    holds       CEL that is true for an allowed value
    allowed     what is allowed, as a sentence about the field: "must be …"
    value       CEL of the value to show after `allowed`; None shows none
    field_path  the field at fault, seen from the object that carries the rule
    but         what stands between `allowed` and the value
    """

    holds: str
    allowed: str
    value: str | None = None
    field_path: str | None = None
    but: str = ", not "

    def schema(self) -> dict[str, str]:
        """Return the rule as the CRD spells it.

        The message is formatted, not joined with +: the API server charges + for the longest
        string it can imagine, and refuses the CRD.
        """
        spelled = {"rule": self.holds, "message": self.allowed}
        if self.value:
            text = json.dumps(f"{self.allowed}{self.but}".replace("%", "%%") + "%s")
            spelled["messageExpression"] = f"{text}.format([{self.value}])"
        if self.field_path:
            spelled["fieldPath"] = self.field_path
        return spelled


def rules(*each: Rule) -> dict[str, Any]:
    """Return the schema keyword that carries these rules."""
    return {KEY: [rule.schema() for rule in each]}
