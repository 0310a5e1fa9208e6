"""If the world were observed so, what should be done: the whole operator as one pure function."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from llm_engine.contract.shape import ModelShape
from llm_operator.api import names
from llm_operator.api.deployment_spec import ScalingMode
from llm_operator.api.parsing import (
    InvalidObject,
    LLMDeployment,
    parse_deployment,
    parse_metadata,
    parse_status,
)
from llm_operator.planner.choice import Choice
from llm_operator.reconcile import status as reports
from llm_operator.reconcile.announce import announce, repaired
from llm_operator.reconcile.conditions import Facts, dated, judge
from llm_operator.reconcile.decision import Action, Apply, Decision, Delete, Scale, SetDeletionCost
from llm_operator.reconcile.drift import has_drifted, signed
from llm_operator.reconcile.engine import Fitted, engine_manifest
from llm_operator.reconcile.identity import engine_name, owned_by, selector_text
from llm_operator.reconcile.inspection import InspectionState, inspect
from llm_operator.reconcile.network import budget_manifest, policy_manifest, service_manifest
from llm_operator.reconcile.observed import EngineSettings, Observed
from llm_operator.reconcile.plan import plan_for, plan_status
from llm_operator.reconcile.pods import Pod
from llm_operator.reconcile.replicas import ordered_replicas, scale, wanted_replicas
from llm_operator.reconcile.trouble import Trouble
from llm_operator.scaling import ScalingDecision

Json: TypeAlias = dict[str, Any]


def decide(observed: Observed, settings: EngineSettings, now_s: float) -> Decision:
    """Return the next step for one LLMDeployment; on the reached state that is no step at all.

    now_s  Unix time: what it is compared with (retries, scaling, transitions) outlives a restart
    """
    metadata = parse_metadata(observed.deployment)
    if metadata.deleting:
        return Decision()  # the garbage collector takes the children, by their ownerReferences
    try:
        deployment = parse_deployment(observed.deployment)
    except InvalidObject as problem:
        return _refuse(observed, str(problem), now_s)
    situation = _look(deployment, _own(observed, metadata.uid), settings, now_s)
    actions = tuple(_actions(situation, settings)) if situation.may_act else ()
    return _report(situation, actions, now_s)


@dataclass(frozen=True)
class _Situation:
    """One LLMDeployment whose spec parses, and what follows from what is observed of it.

    replicas  pods of the replicas, those being deleted too
    choice    None: the model of this spec is not known yet
    scaled    None: nothing to scale, or no leave to
    wanted    replicas to order; None: nothing to order them of
    """

    deployment: LLMDeployment
    observed: Observed
    conflict: Trouble | None
    paused: bool
    engine: Json | None
    replicas: tuple[Pod, ...]
    inspection: InspectionState
    choice: Choice | None
    scaled: ScalingDecision | None
    wanted: int | None

    @property
    def may_act(self) -> bool:
        """Neither paused nor a second claimant of its name."""
        return not self.paused and self.conflict is None

    @property
    def fitted(self) -> Fitted | None:
        """The hardware that was chosen; None where there is none."""
        return Fitted.of(self.choice) if self.choice else None


def _look(
    deployment: LLMDeployment, observed: Observed, settings: EngineSettings, now_s: float
) -> _Situation:
    engine = observed.child("Deployment", engine_name(deployment.metadata.name))
    replicas = tuple(p for p in observed.pods if p.component == names.ENGINE_COMPONENT)
    inspection = inspect(deployment, observed, settings, now_s)
    shape = _shape(deployment, inspection)
    choice = plan_for(deployment, shape, observed.accelerators) if shape else None
    conflict = _name_conflict(deployment, observed)
    paused = deployment.metadata.annotations.get(names.PAUSE_ANNOTATION) == "true"
    scaled = None
    if not paused and not conflict and (engine or (choice and choice.accelerator)):
        scaled = scale(deployment, observed, engine, replicas, choice, now_s)
    return _Situation(
        deployment,
        observed,
        conflict,
        paused,
        engine,
        replicas,
        inspection,
        choice,
        scaled,
        wanted_replicas(deployment, ordered_replicas(engine), scaled),
    )


def _own(observed: Observed, uid: str) -> Observed:
    """Leave out what carries our label but belongs to somebody else, or to an older namesake."""
    owned = tuple(child for child in observed.children if owned_by(child, uid))
    return replace(observed, children=owned)


def _shape(deployment: LLMDeployment, inspection: InspectionState) -> ModelShape | None:
    """Return the shape of the model that the spec names; never that of an older source."""
    if inspection.report:
        return inspection.report.shape
    model = deployment.status.model
    return model.shape if model and model.source == deployment.spec.model.source else None


def _name_conflict(deployment: LLMDeployment, observed: Observed) -> Trouble | None:
    owner, metadata = observed.name_owner, deployment.metadata
    if owner is None or (owner.namespace, owner.name) == (metadata.namespace, metadata.name):
        return None
    return Trouble(
        "NameConflict",
        f"LLMDeployment {owner.namespace}/{owner.name}, which is older, serves the name"
        f" {deployment.served_name!r}: set another spec.model.servedName.",
    )


def _actions(situation: _Situation, settings: EngineSettings) -> Iterator[Action]:
    """Yield what to do, in order."""
    owner, observed = situation.deployment.metadata, situation.observed
    yield from situation.inspection.actions
    around = [service_manifest(owner), budget_manifest(owner)]
    if settings.restrict_traffic:
        around.append(policy_manifest(owner, settings))
    else:
        yield from (Delete(policy) for policy in observed.of_kind("NetworkPolicy"))
    for manifest in around:
        yield from _applied(manifest, observed)
    yield from _engine_actions(situation, settings)


def _engine_actions(situation: _Situation, settings: EngineSettings) -> Iterator[Action]:
    engine, wanted, fitted = situation.engine, situation.wanted, situation.fitted
    if wanted is None:
        return
    if engine and wanted < (ordered_replicas(engine) or 0) and situation.scaled:
        costs = situation.scaled.deletion_costs
        for pod in situation.replicas:
            if pod.name in costs and pod.deletion_cost != costs[pod.name]:
                yield SetDeletionCost(pod.name, pod.uid, costs[pod.name])
    if fitted:
        manifest = engine_manifest(situation.deployment, fitted, wanted, settings)
        yield from _applied(manifest, situation.observed)
    elif engine and wanted != ordered_replicas(engine):
        yield Scale(engine, wanted)


def _applied(manifest: Json, observed: Observed) -> Iterator[Apply]:
    """Yield the application of a manifest, unless the object is there and as it should be."""
    wanted = signed(manifest)
    seen = observed.child(manifest["kind"], manifest["metadata"]["name"])
    if seen is None or has_drifted(wanted, seen):
        yield Apply(wanted, seen)


def _facts(situation: _Situation) -> Facts:
    choice, spec = situation.choice, situation.deployment.spec
    unplanned = over_price = None
    if choice and choice.accelerator is None:
        unplanned = Trouble(choice.reason.value, _capital(choice.because))
    elif choice and choice.accelerator:
        price, budget = choice.accelerator.spec.price.per_h, spec.targets.max_cost_per_h
        if price is not None and budget is not None and price > budget:
            over_price = (
                f"One replica on {choice.accelerator.name} costs {price} per hour,"
                f" targets.maxCostPerHour is {budget}."
            )
    return Facts(
        conflict=situation.conflict,
        paused=situation.paused,
        manual=spec.scaling.mode is ScalingMode.MANUAL,
        obstacle=situation.observed.obstacle,
        inspection=situation.inspection,
        unplanned=unplanned,
        engine=situation.engine,
        replicas=tuple(pod for pod in situation.replicas if not pod.terminating),
        wanted=situation.wanted,
        scaled=situation.scaled,
        over_price=over_price,
    )


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _report(situation: _Situation, actions: tuple[Action, ...], now_s: float) -> Decision:
    """Put status and notes beside the actions."""
    deployment, observed, scaled = situation.deployment, situation.observed, situation.scaled
    before, generation = deployment.status, deployment.metadata.generation
    facts = _facts(situation)
    engine_status = (situation.engine or {}).get("status") or {}
    choice = situation.choice
    plan = plan_status(deployment, choice, situation.wanted) if choice else before.plan
    after = reports.assemble(
        deployment,
        dated(judge(facts), before.conditions, generation, now_s),
        reports.Replicas(int(engine_status.get("replicas") or 0), facts.ready),
        selector_text(deployment.metadata.name),
        model=reports.model_status(deployment, situation.inspection.report, choice),
        plan=plan,
        observed=scaled.observed if scaled else before.observed,
        cold_start=reports.cold_start(facts.replicas) or before.cold_start,
        decisions=reports.decisions(deployment, scaled, situation.wanted, now_s),
        scaling=reports.scaling_memory(deployment, scaled),
    )
    raw = observed.deployment.get("status") or {}
    return Decision(
        actions,
        reports.worth_reporting(after, raw, observed.reported_s, now_s),
        announce(before, after) + repaired(before, actions, generation),
        scaled,
    )


def _refuse(observed: Observed, problem: str, now_s: float) -> Decision:
    """Report a spec that does not parse; what runs is left as it is."""
    metadata, before = parse_metadata(observed.deployment), parse_status(observed.deployment)
    facts = Facts(refused=Trouble("InvalidSpec", f"Correct the spec: {problem}"))
    after = before.model_copy(
        update={
            "conditions": dated(judge(facts), before.conditions, metadata.generation, now_s),
            "observed_generation": metadata.generation,
        }
    )
    raw = observed.deployment.get("status") or {}
    report = reports.worth_reporting(after, raw, observed.reported_s, now_s)
    return Decision(status=report, notes=announce(before, after))
