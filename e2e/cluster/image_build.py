"""Build the two images with buildah, once per key of their inputs.

Where no registry of images can be reached, the base is made of Debian packages (base_image); set
the environment variable BASE to use another one.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import base_image, mounts
from e2e.cluster.inputs import key
from e2e.cluster.places import CHECKOUT, Places
from e2e.cluster.prerequisites import BUILD_PACKAGES, install, program, require_root
from e2e.cluster.progress import CannotContinue, run, run_long, step

REPOSITORY = "localhost/llm-operator"
RUN_ROOT = Path("/run/llm-operator-buildah")
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
TAGS_KEPT = 4  # of each image, the newest; layers that they share are there once
# Built, exported and unpacked side by side for a moment, torch with its CUDA libraries is large.
FREE_BYTES_NEEDED = 25 * 10**9


@dataclass(frozen=True)
class Recipe:
    """One image: its name, its Dockerfile and the paths of the checkout that go into it."""

    name: str
    dockerfile: str
    inputs: tuple[str, ...]


COMMON = ("pyproject.toml", "uv.lock", "README.md", "LICENSE", "serving_image/llm_engine")
CONTROL = Recipe("control", "operator/Dockerfile", (*COMMON, "operator/llm_operator"))
SERVING = Recipe("serving", "serving_image/Dockerfile", COMMON)


def buildah(places: Places) -> list[str | Path]:
    """Return the start of every buildah command: its store is ours, in the cache."""
    return [program("buildah"), "--root", places.cache / "containers", "--runroot", RUN_ROOT,
            "--storage-driver", "overlay"]  # fmt: skip


def base(places: Places) -> str:
    """Return the reference of our own base of Debian packages, making it where that is not done."""
    require_root()
    install(BUILD_PACKAGES)
    here = Path(__file__).parent
    system = Path("/etc/os-release").read_text()
    image = f"{REPOSITORY}/base:{key(here, ['base_image.py'], [system])}"
    if not _exists(places, image):
        with (
            step("Making a base image of Debian packages"),
            tempfile.TemporaryDirectory(prefix="llm-operator-base-") as folder,
        ):
            root = Path(folder) / "root"
            base_image.make_root(root, Path(folder) / "downloads")
            container = run([*buildah(places), "from", "scratch"]).strip()
            run([*buildah(places), "add", "--quiet", container, root, "/"])
            run([*buildah(places), "commit", "--quiet", "--rm", container, image])
    return image


def built(places: Places, recipe: Recipe, checkout: Path = CHECKOUT) -> str:
    """Return the reference of an up-to-date image, building it first where that is not done yet."""
    require_root()
    install(BUILD_PACKAGES)
    arguments = {
        "BASE": os.environ.get("BASE") or base(places),
        "TORCH_INDEX": os.environ.get("TORCH_INDEX", ""),
    }
    with tempfile.TemporaryDirectory(prefix="llm-operator-context-") as name:
        # A copy: an edit while the build runs must not get into an image of another key.
        context = Path(name)
        for path in (recipe.dockerfile, *recipe.inputs):
            _copy(checkout / path, context / path)
        inputs = key(context, ["."], arguments.values())
        image = f"{REPOSITORY}/{recipe.name}:{inputs}"
        if not _exists(places, image):
            if not _tags(places, recipe):
                _require_free_space(places.cache)
            _build(places, recipe, context, image, arguments)
            _drop_old_tags(places, recipe)
    return image


def release(places: Places) -> None:
    """Remove working containers of builds that were killed, and the mounts of the build's store."""
    run([*buildah(places), "rm", "--all"])
    mounts.unmount([places.cache / "containers"])


def _copy(source: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(source, copy)


def _build(
    places: Places, recipe: Recipe, context: Path, image: str, arguments: Mapping[str, str]
) -> None:
    log = places.cache / "logs" / f"image-{recipe.name}.log"
    settings = [w for name, value in arguments.items() for w in ("--build-arg", f"{name}={value}")]
    with step(f"Building the {recipe.name} image (log: {log})"), _lent_files() as lent:
        run_long(
            [*buildah(places), "bud", "--isolation", "chroot", "--network", "host", "--layers",
             *settings, *lent, "--file", context / recipe.dockerfile, "--tag", image, context],
            log,
        )  # fmt: skip


def _exists(places: Places, image: str) -> bool:
    # `inspect` would ask a registry for an image that is not here; a list asks no one.
    names = run([*buildah(places), "images", "--format", "{{.Name}}:{{.Tag}}"])
    return image in names.split()


def _tags(places: Places, recipe: Recipe) -> list[str]:
    """Return the references of an image that are built, the newest first."""
    listed = run([*buildah(places), "images", "--format", "{{.CreatedAtRaw}}|{{.Name}}:{{.Tag}}"])
    newest_first = [line.partition("|")[2] for line in sorted(listed.splitlines(), reverse=True)]
    return [name for name in newest_first if name.startswith(f"{REPOSITORY}/{recipe.name}:")]


def _drop_old_tags(places: Places, recipe: Recipe) -> None:
    if old := _tags(places, recipe)[TAGS_KEPT:]:
        run([*buildah(places), "rmi", "--force", *old])


def _require_free_space(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < FREE_BYTES_NEEDED:
        raise CannotContinue(
            f"building images needs {FREE_BYTES_NEEDED / 1e9:.0f} GB of free disk below {folder}, "
            f"there are {free_bytes / 1e9:.0f} GB; an index of CPU builds needs far less: "
            "set TORCH_INDEX"
        )


@contextmanager
def _lent_files() -> Iterator[list[str]]:
    """Lend the build this machine's certificates and package index; none of it stays in a layer."""
    index = os.environ.get("PIP_INDEX_URL", "")
    with tempfile.TemporaryDirectory(prefix="llm-operator-build-") as name:
        folder = Path(name)
        pip = ["[global]", f"cert = {CA_BUNDLE}", *([f"index-url = {index}"] if index else [])]
        uv = ["system-certs = true", *([f'index-url = "{index}"'] if index else [])]
        (folder / "pip.conf").write_text("\n".join(pip) + "\n")
        (folder / "uv.toml").write_text("\n".join(uv) + "\n")
        lent = {
            folder / "pip.conf": "/etc/pip.conf",
            folder / "uv.toml": "/etc/uv/uv.toml",
            CA_BUNDLE: str(CA_BUNDLE),
        }
        yield [word for here, there in lent.items() for word in ("-v", f"{here}:{there}:ro")]
