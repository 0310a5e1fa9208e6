"""`make demo`: a cluster, the operator, a real model, a chat and a burst of load.

Everything is done with kubectl and helm, as you would do it; the commands are printed.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp
from rich.console import Console

from e2e import release
from e2e.burst_table import BurstTable, Span
from e2e.cluster.progress import CannotContinue
from e2e.cluster.target import Target, bring_up, images, target
from e2e.kubectl import Kubectl, NeverHappened
from e2e.load import Client, Load
from e2e.models import EXAMPLE, Model, condition
from e2e.weights import put_weights

NAMESPACE: Final = "llm-demo"
QUESTION: Final = "What is the capital of France?"
# In requests during the time that one whole answer takes when nobody else asks. A replica answers
# some at once, so the burst is what two or three replicas can do, and the rest is little for one.
BURST: Final = 3.0
QUIET: Final = 0.15
GROWING: Final = Span(every_s=3, at_least_s=40, at_most_s=120)
SHRINKING: Final = Span(every_s=6, at_least_s=0, at_most_s=180)

console: Final = Console(highlight=False)


@contextmanager
def chapter(title: str) -> Iterator[None]:
    """Head a part of the demo, and say how long it took."""
    console.print(f"\n[bold cyan]{title}[/]")
    start_s = time.monotonic()
    yield
    console.print(f"[dim]{time.monotonic() - start_s:.1f} s[/]")


def command(text: str) -> None:
    """Show a command that is run just now, as one would type it."""
    console.print(f"[green]$ {text}[/]", soft_wrap=True)


def install(where: Target) -> tuple[Kubectl, str]:
    """Bring up the cluster, install the chart, and put weights on a volume."""
    kubectl = Kubectl(where.kubectl, where.kubeconfig, where.context)
    helm = release.Helm(where.helm, where.kubeconfig, where.context)
    with chapter("1. A Kubernetes cluster and the two images"):
        bring_up(where)
        built = images(where)
    with chapter("2. The operator and its gateway"):
        command(f"helm upgrade --install {release.NAME} charts/llm-operator -n {release.NAMESPACE}")
        release.install(helm, release.image_values(built.control, built.engine))
    return kubectl, built.control


def deploy(kubectl: Kubectl, loader_image: str) -> Model:
    """Apply the example's LLMDeployment and wait until it answers."""
    model = Model(kubectl, NAMESPACE, "smollm2")
    with chapter("3. A model: SmolLM2-135M, on a volume"):
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        put_weights(kubectl, NAMESPACE, loader_image)
        command(f"kubectl apply -n {NAMESPACE} -f docs/examples/smollm2.yaml")
        kubectl("apply", "-n", NAMESPACE, "-f", EXAMPLE)
        with console.status("waiting for Ready ...") as spinner:

            def ready() -> bool:
                found = condition(model.seen())
                spinner.update(f"Ready={found['status']} {found['reason']}: {found['message']}")
                return found["status"] == "True" and len(model.pods()) == len(model.ready_pods())

            model.wait("the model is ready", ready, 300)
        command(f"kubectl get llmd -n {NAMESPACE} -o wide")
        console.print(kubectl("get", "llmd", "-n", NAMESPACE, "-o", "wide"), soft_wrap=True)
    return model


async def chat(client: Client) -> None:
    """Ask one question and print the answer."""
    with chapter("4. A chat, through the gateway"):
        console.print(f"  you: {QUESTION}")
        answer = await client.ask(QUESTION)
        if answer.failure:
            raise CannotContinue(f"the chat failed: {answer.failure}")
        console.print(f"  smollm2: [bold]{answer.text.strip()}[/]")
        console.print(
            f"  [dim]first token after {(answer.first_token_s or 0) * 1000:.0f} ms, then"
            f" {(answer.per_token_s or 0) * 1000:.0f} ms per token[/]"
        )


async def burst(client: Client, model: Model) -> Load:
    """Send more than one replica can bear, watch replicas come, stop, and watch them go."""
    with chapter("5. A burst of load"):
        table = BurstTable(console, model)
        most = (model.seen() or {})["spec"]["scaling"]["maxReplicas"]
        with console.status("measuring how long an answer takes ..."):
            answer_s = await client.seconds_alone()
        console.print(
            f"  an answer takes {answer_s:.1f} s here when nobody else asks;"
            f" now {BURST / answer_s:.1f} requests come every second",
            soft_wrap=True,
        )
        load = Load(client, BURST / answer_s)
        async with load.sending():
            await table.show(load, GROWING, lambda ready: ready == most)
            load.requests_per_s = QUIET / answer_s
            console.print("  [bold]the burst is over[/]")
            await table.show(load, SHRINKING, lambda ready: ready == 1)
    return load


def epilogue(where: Target, load: Load) -> None:
    """Say how it went, how to go on, and how to stop."""
    failed = len(load.failures)
    console.print(
        f"\n[bold]{len(load.answers)} streaming requests, {failed} failed"
        f"{'' if not load.unsent else f', {load.unsent} not sent'}.[/]"
    )
    for failure in sorted(set(load.failures)):
        console.print(f"  [red]{failure}[/]")
    context = f" --context {where.context}" if where.context else ""
    console.print("\nEverything is still running. To go on:")
    if where.embedded:
        command(f"export KUBECONFIG={where.kubeconfig} PATH={where.kubectl.parent}:$PATH")
    command(f"kubectl{context} describe llmd smollm2 -n {NAMESPACE}")
    command(
        f"kubectl{context} -n {release.NAMESPACE} port-forward service/{release.GATEWAY} 8080:80"
    )
    body = (
        '{"model": "smollm2", "max_tokens": 50,'
        ' "messages": [{"role": "user", "content": "Hello!"}]}'
    )
    command(
        "curl http://localhost:8080/v1/chat/completions"
        f" -H 'Content-Type: application/json' -d '{body}'"
    )
    console.print("To stop:")
    if where.embedded:
        command("make cluster-down")
    else:
        command(f"kubectl{context} delete namespace {NAMESPACE}")
        named = f" --kube-context {where.context}" if where.context else ""
        command(f"helm{named} uninstall {release.NAME} -n {release.NAMESPACE}")


async def show(where: Target, kubectl: Kubectl, model: Model) -> Load:
    """Chat and burst, through one gateway URL."""
    with release.gateway(kubectl, reachable=where.embedded) as url:
        async with aiohttp.ClientSession() as session:
            client = Client(session, url, model.name)
            await chat(client)
            return await burst(client, model)


def main() -> int:
    """Run the demo; a failure is one message."""
    start_s = time.monotonic()
    try:
        where = target(os.environ)
        kubectl, loader_image = install(where)
        model = deploy(kubectl, loader_image)
        load = asyncio.run(show(where, kubectl, model))
    except (CannotContinue, NeverHappened) as error:
        console.print(f"[red]error:[/] {error}")
        for note in getattr(error, "__notes__", ()):
            console.print(note)
        return 1
    epilogue(where, load)
    console.print(f"[dim]the demo took {time.monotonic() - start_s:.0f} s[/]")
    return 1 if load.failures else 0


if __name__ == "__main__":
    sys.exit(main())
