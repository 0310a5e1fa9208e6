"""Tokens computed twice when the KV cache is half of what the load wants, by scheduling policy.

The scheduler is the engine's own; no model runs: a step computes at once whatever was planned, and
every text ends at a length that the scheduler does not know.

    python serving_image/benchmarks/preemption.py --output preemption.json
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

from llm_engine.scheduling.blocks import BlockPool
from llm_engine.scheduling.plan import Limits, Victim, least_computed
from llm_engine.scheduling.request import Request
from llm_engine.scheduling.scheduler import Scheduler

BLOCK_TOKENS: Final = 16
LIMITS: Final = Limits(step_tokens=512, step_requests=64)
MOST_OUTPUT: Final = 1500
SEEDS: Final = (1, 2, 3)


@dataclass(frozen=True)
class Asked:
    """One request of the load: its tokens, and after how many more it ends."""

    prompt: tuple[int, ...]
    output_tokens: int


@dataclass(frozen=True)
class Policy:
    """A way to schedule.

    choose_victim   who loses its blocks when they run out
    reserve_tokens  growth that admission keeps free for everyone that runs
    keeps_prefixes  whether computed blocks stay usable until they are taken
    """

    choose_victim: Victim
    reserve_tokens: int
    keeps_prefixes: bool


@dataclass(frozen=True)
class Outcome:
    """What a policy came to, over all seeds."""

    preemptions: int = 0
    recomputed_tokens: int = 0
    computed_tokens: int = 0
    steps: int = 0
    most_blocks: int = 0

    def plus(self, other: "Outcome") -> "Outcome":
        """Return both together; of the blocks the larger number."""
        return Outcome(
            self.preemptions + other.preemptions,
            self.recomputed_tokens + other.recomputed_tokens,
            self.computed_tokens + other.computed_tokens,
            self.steps + other.steps,
            max(self.most_blocks, other.most_blocks),
        )


def newest_first(candidates: Sequence[Request]) -> Request:
    """Choose the request that came last, as most engines do."""
    return candidates[-1]


def a_load(seed: int, requests: int) -> list[Asked]:
    """Return requests of mixed lengths: medians of 245 prompt and 200 output tokens, long tails."""
    chance = Random(seed)
    load = []
    for number in range(requests):
        prompt_tokens = min(2000, 8 + int(chance.lognormvariate(5.5, 0.9)))
        output_tokens = min(MOST_OUTPUT, 4 + int(chance.lognormvariate(5.3, 0.8)))
        load.append(Asked((number,) * prompt_tokens, output_tokens))
    return load


def simulate(load: Iterable[Asked], blocks: int, policy: Policy) -> Outcome:
    """Run a load, all of which is there from the start, to its end."""
    scheduler = Scheduler(BlockPool(blocks, policy.keeps_prefixes), policy.choose_victim)
    limits = replace(LIMITS, reserve_tokens=policy.reserve_tokens)
    output_tokens: dict[Request, int] = {}
    for asked in load:
        request = Request("", list(asked.prompt), BLOCK_TOKENS, most_output=MOST_OUTPUT)
        output_tokens[request] = asked.output_tokens
        scheduler.add(request)
    outcome = Outcome()
    while scheduler.running or scheduler.waiting:
        step = scheduler.begin_step(limits)
        held = blocks - scheduler.pool.free_blocks
        recomputed = scheduler.end_step(step.tokens)
        computed = sum(step.tokens.values())
        outcome = outcome.plus(Outcome(len(step.evicted), recomputed, computed, 1, held))
        for request in step.tokens:
            if request.tokens_behind == 0:
                request.tokens.append(outcome.steps)
                if request.output_tokens == output_tokens[request]:
                    scheduler.remove(request)
    return outcome


def compare(requests: int, seeds: Sequence[int] = SEEDS) -> list[tuple[Policy, Outcome]]:
    """Run every policy on the same loads, with half of the blocks that each would fill."""
    reserve = LIMITS.reserve_tokens
    policies = [
        Policy(victim, reserve_tokens, keeps_prefixes)
        for keeps_prefixes in (False, True)
        for reserve_tokens in (0, reserve)
        for victim in (newest_first, least_computed)
    ]
    outcomes = dict.fromkeys(policies, Outcome())
    for seed in seeds:
        load = a_load(seed, requests)
        wanted = simulate(load, 1_000_000, policies[0]).most_blocks
        for policy in policies:
            outcomes[policy] = outcomes[policy].plus(simulate(load, wanted // 2, policy))
    return list(outcomes.items())


def main() -> None:
    """Print the table, and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=300, help="per load [%(default)s]")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write JSON here")
    options = parser.parse_args()
    rows = [
        {
            "victim": policy.choose_victim.__name__,
            "reserve_tokens": policy.reserve_tokens,
            "keeps_prefixes": policy.keeps_prefixes,
            **asdict(outcome),
        }
        for policy, outcome in compare(options.requests)
    ]
    print("| victim | reserve | prefix cache | preemptions | recomputed tokens | change | steps |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        base = next(r for r in rows if r["keeps_prefixes"] == row["keeps_prefixes"])
        change = row["recomputed_tokens"] / base["recomputed_tokens"] - 1
        print(
            f"| {row['victim']} | {row['reserve_tokens']} | {row['keeps_prefixes']} |"
            f" {row['preemptions']:,} | {row['recomputed_tokens']:,} | {change:+.0%} |"
            f" {row['steps']:,} |"
        )
    if options.output is not None:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
