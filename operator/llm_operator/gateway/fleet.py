"""All models that this gateway serves, kept in step with what was learned of the cluster."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from llm_operator.gateway.model import Model
from llm_operator.gateway.refusal import Refusal, model_not_found
from llm_operator.gateway.settings import Settings


@dataclass(frozen=True)
class Served:
    """What the gateway must know of a model: its age and where its ready replicas listen.

    created_s  Unix time
    """

    created_s: int
    urls: tuple[str, ...]


@dataclass
class Fleet:
    """The models by served name.

    known  False until the first complete picture: before, an unknown model may just be unheard of
    """

    settings: Settings
    now_s: Callable[[], float]
    first_turn: int = 0
    models: dict[str, Model] = field(default_factory=dict)
    known: bool = False

    def update(self, served: Mapping[str, Served]) -> None:
        """Make these the models: new ones appear, vanished ones refuse what they hold."""
        for name in self.models.keys() - served.keys():
            self.models.pop(name).refuse_held(model_not_found(name))
        for name, model in served.items():
            if name not in self.models:
                self.models[name] = Model(
                    name, model.created_s, self.settings, self.now_s, turn=self.first_turn
                )
            self.models[name].created_s = model.created_s
            self.models[name].set_replicas(model.urls)
        self.known = True

    def refuse_held(self, refusal: Refusal) -> None:
        """Refuse all that is held, of every model."""
        for model in self.models.values():
            model.refuse_held(refusal)
