"""`llm-operator run`: the operator itself."""

import argparse
import asyncio
import os
import secrets
import socket
from pathlib import Path
from typing import Final

from llm_operator.api import names
from llm_operator.cli import logs, operation
from llm_operator.reconcile.observed import EngineSettings

_DEFAULT_NAMESPACE: Final = "llm-operator"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `llm-operator run`."""
    parser.add_argument("--engine-image", required=True, help="image of the replicas (llm-engine)")
    parser.add_argument(
        "--engine-image-pull-policy",
        default="IfNotPresent",
        choices=["Always", "IfNotPresent", "Never"],
        help="default: %(default)s",
    )
    parser.add_argument(
        "--engine-image-pull-secret",
        action="append",
        default=[],
        metavar="NAME",
        help="Secret in the namespace of each LLMDeployment; may be given again",
    )
    parser.add_argument(
        "--namespace",
        default=os.environ.get("POD_NAMESPACE", _DEFAULT_NAMESPACE),
        help="where the Lease and the gateways are (default: %(default)s)",
    )
    parser.add_argument(
        "--watch-namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="serve only the LLMDeployments of this namespace; may be given again (default: all)",
    )
    parser.add_argument(
        "--gateway-selector",
        default=f"{names.COMPONENT_LABEL}={names.GATEWAY_COMPONENT}",
        metavar="LABELS",
        help="labels of the gateways' pods (default: %(default)s)",
    )
    parser.add_argument(
        "--catalogue",
        type=Path,
        metavar="FILE",
        help="AcceleratorClasses to apply at start: YAML, name to spec",
    )
    parser.add_argument(
        "--restrict-engine-traffic",
        action="store_true",
        help="one NetworkPolicy per LLMDeployment: only gateways and operator reach its replicas",
    )
    parser.add_argument("--host", default="0.0.0.0", help="default: %(default)s")
    parser.add_argument("--health-port", type=int, default=names.OPERATOR_HEALTH_PORT)
    parser.add_argument("--metrics-port", type=int, default=names.OPERATOR_METRICS_PORT)
    parser.add_argument(
        "--log-level", default="info", choices=["debug", "info", "warning", "error"]
    )
    parser.add_argument("--log-format", default="json", choices=["json", "text"])


def main(args: argparse.Namespace) -> int:
    """Run the operator until SIGTERM or SIGINT; return its exit status."""
    logs.configure(args.log_level, args.log_format)
    return asyncio.run(operation.run(settings_of(args)))


def settings_of(args: argparse.Namespace) -> operation.Settings:
    """Return the settings that the command line says."""
    return operation.Settings(
        engine=EngineSettings(
            image=args.engine_image,
            pull_policy=args.engine_image_pull_policy,
            pull_secrets=tuple(args.engine_image_pull_secret),
            namespace=args.namespace,
            restrict_traffic=args.restrict_engine_traffic,
        ),
        # A pod keeps its name over a restart of its container, and the Lease must not.
        identity=f"{socket.gethostname()}_{secrets.token_hex(4)}",
        namespaces=tuple(args.watch_namespace),
        gateway_selector=args.gateway_selector,
        catalogue=args.catalogue,
        host=args.host,
        health_port=args.health_port,
        metrics_port=args.metrics_port,
    )
