"""`llm-operator gateway`: the OpenAI-compatible proxy in front of all LLMDeployments."""

import argparse
import asyncio
import dataclasses
import sys
from pathlib import Path

import uvloop

from llm_operator.cli import logs
from llm_operator.gateway import process
from llm_operator.gateway.fleet import Fleet, Served
from llm_operator.gateway.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `llm-operator gateway`: every setting, and where models come from."""
    for setting in dataclasses.fields(Settings):
        parser.add_argument(
            flag(setting.name),
            dest=setting.name,
            type=setting.type if callable(setting.type) else str,
            default=setting.default,
            metavar="ADDRESS" if setting.type is str else "N",
            help=f"{setting.metadata['help']} (default: %(default)s)",
        )
    parser.add_argument(
        "--static",
        action="append",
        metavar="MODEL=URL[,URL...]",
        type=static_model,
        help="serve this model from these replicas and no cluster; may be given again",
    )
    parser.add_argument("--kubeconfig", type=Path, help="default: the pod's own account")
    parser.add_argument("--context", help="context of the kubeconfig")
    parser.add_argument(
        "--log-level", default="info", choices=["debug", "info", "warning", "error"]
    )
    parser.add_argument("--log-format", default="json", choices=["json", "text"])


def flag(setting: str) -> str:
    """Return the flag of a setting: `drain_s` is `--drain-seconds`."""
    words = setting.removesuffix("_s") + ("_seconds" if setting.endswith("_s") else "")
    return "--" + words.replace("_", "-")


def static_model(text: str) -> tuple[str, tuple[str, ...]]:
    """Parse MODEL=URL,URL; no URL at all is a model without replicas."""
    model, equals, urls = text.partition("=")
    if not model or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form MODEL=URL[,URL...]")
    return model, tuple(url.rstrip("/") for url in urls.split(",") if url)


def main(args: argparse.Namespace) -> int:
    """Run the gateway until SIGTERM or SIGINT; 0 after an orderly end, 2 without a cluster."""
    logs.configure(args.log_level, args.log_format)
    names = [setting.name for setting in dataclasses.fields(Settings)]
    settings = Settings(**{name: getattr(args, name) for name in names})
    if args.static is not None:
        return _run(settings, _learn_once({model: Served(0, urls) for model, urls in args.static}))

    # Imported only here: the Kubernetes client takes a second and 25 MB.
    from llm_operator.cluster.connection import NoCluster
    from llm_operator.gateway.learning import learn

    status = 0
    try:
        _run(settings, lambda fleet: learn(fleet, args.kubeconfig, args.context))
    except* NoCluster as lost:
        print(*lost.exceptions, file=sys.stderr)
        status = 2
    return status


def _run(settings: Settings, learn: process.Learn) -> int:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(process.run(settings, learn))
    return 0


def _learn_once(served: dict[str, Served]) -> process.Learn:
    async def learn(fleet: Fleet) -> None:
        fleet.update(served)

    return learn
