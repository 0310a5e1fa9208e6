"""A real Kubernetes on this Linux machine, without Docker. State lies outside the checkout."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict

from e2e.cluster import image_build, lifecycle
from e2e.cluster import status as state
from e2e.cluster.go_programs import MODULES, built
from e2e.cluster.places import Places, here
from e2e.cluster.progress import CannotContinue, say
from e2e.cluster.target import bring_up, images, target


def main() -> int:
    """Run one command; a failure is one message, never a traceback."""
    arguments = _parser().parse_args()
    run: Callable[[argparse.Namespace, Places], None] = arguments.run
    try:
        run(arguments, here())
    except CannotContinue as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("Interrupted; the next `up` clears what is half done.")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m e2e.cluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(run=run)
        return one

    up = command("up", _up, "start the cluster, or do nothing when it is up and current")
    up.add_argument("--fresh", action="store_true", help="replace a running one by an empty one")
    down = command("down", _down, "stop the cluster and leave nothing behind but built things")
    down.add_argument("--purge", action="store_true", help="remove the loaded images, too")
    status = command("status", _status, "what runs, where it lies, what memory it takes")
    status.add_argument("--json", action="store_true", help="for a script")
    build = command("build", _build, "build programs from source where that is not done yet")
    build.add_argument("modules", nargs="*", default=MODULES, metavar="module",
                       help=f"default: {' '.join(MODULES)}")  # fmt: skip
    command("images", _images, "build both images, load them, print their references as JSON")
    command("base", _base, "make only the base of both images, from Debian packages")
    command("kubeconfig", _kubeconfig, "print the path of the administrator's kubeconfig")
    command("env", _env, 'for: eval "$(python -m e2e.cluster env)"')
    return parser


def _up(arguments: argparse.Namespace, _: Places) -> None:
    bring_up(target(os.environ), fresh=arguments.fresh)


def _down(arguments: argparse.Namespace, places: Places) -> None:
    if os.environ.get("CLUSTER", "embedded") != "embedded":
        raise CannotContinue("`down` removes the embedded cluster only; unset CLUSTER")
    lifecycle.down(places, purge=arguments.purge)


def _status(arguments: argparse.Namespace, places: Places) -> None:
    found = state.status(places)
    print(json.dumps(asdict(found), indent=2) if arguments.json else state.as_text(found))


def _build(arguments: argparse.Namespace, places: Places) -> None:
    for module in arguments.modules:
        if module not in MODULES:
            raise CannotContinue(f"{module!r} is none of {', '.join(MODULES)}")
        built(places, module)


def _images(_: argparse.Namespace, __: Places) -> None:
    print(json.dumps(asdict(images(target(os.environ))), indent=2))


def _base(_: argparse.Namespace, places: Places) -> None:
    print(image_build.base(places))


def _kubeconfig(_: argparse.Namespace, __: Places) -> None:
    print(target(os.environ).kubeconfig)


def _env(_: argparse.Namespace, places: Places) -> None:
    print(state.shell_settings(places))


if __name__ == "__main__":
    sys.exit(main())
