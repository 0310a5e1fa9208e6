"""`llm-operator SUBCOMMAND`: each subcommand is a module of its own, loaded only when asked for.

So `generate` needs no kopf, and the gateway's process never loads the operator.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Final

_PURPOSE: Final = "Runs large language models at the latency and the price that was asked for."
SUBCOMMANDS: Final = {
    "run": "Run the operator",
    "gateway": "Run the gateway: the OpenAI-compatible door to all models",
    "generate": "Write the CRDs, their reference page and the chart's copies",
}
"""Name of each subcommand's module, and what its help says."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="llm-operator", description=_PURPOSE)
    parser.add_argument(
        "--version", action="version", version=f"llm-operator {version('llm-operator')}"
    )
    subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    asked = next((word for word in words if not word.startswith("-")), None)
    for name, says in SUBCOMMANDS.items():
        subparser = subparsers.add_parser(name, help=says, description=f"{says}.")
        if name == asked:
            module = import_module(f"{__name__}.{name}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.main)
    arguments = parser.parse_args(words)
    return int(arguments.run(arguments))
