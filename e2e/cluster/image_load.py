"""Bring built images into the cluster's containerd, moving only the layers that it lacks.

An image is copied into a layout folder that remembers each layer once moved as an empty sparse file
of the same size: the next copy finds it "there" and skips it. containerd in turn keeps a layer as
unpacked files and forgets the archive. So after a change of code only the last layers travel, and
no gigabyte lies around twice.
"""

import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from e2e.cluster import containerd, image_build, oci
from e2e.cluster.go_programs import locked
from e2e.cluster.image_build import CONTROL, RUN_ROOT, SERVING, TAGS_KEPT, Recipe
from e2e.cluster.lifecycle import is_healthy
from e2e.cluster.places import Places
from e2e.cluster.prerequisites import program
from e2e.cluster.progress import CannotContinue, run, say, step


def load(places: Places) -> dict[str, str]:
    """Return the references of both images, built and, where the cluster is up, loaded."""
    with locked(places.cache / "images.lock"):
        try:
            return _build_and_load(places)
        finally:
            image_build.release(places)


def _build_and_load(places: Places) -> dict[str, str]:
    images = {r.name: image_build.built(places, r) for r in (CONTROL, SERVING)}
    if is_healthy(places):
        for recipe in (CONTROL, SERVING):
            _load(places, recipe, images[recipe.name])
    else:
        say("The cluster is not up, so the images are built but not loaded.")
    return images


def _load(places: Places, recipe: Recipe, image: str) -> None:
    if image in containerd.image_names(places):
        return
    with step(f"Loading the {recipe.name} image into the cluster"):
        layout = Layout(places.store / "layers")
        manifest = layout.take(places, image)
        try:
            _import(places, image, layout, manifest)
        except CannotContinue as error:
            say(f"The cluster lacks a layer that it once had; loading them all. ({error})")
            shutil.rmtree(layout.folder)
            manifest = layout.take(places, image)
            _import(places, image, layout, manifest)
        # The layers are unpacked now: their archives are of no more use.
        containerd.ctr(places, "content", "prune", "references")
        layout.empty(manifest)
        _drop_old_tags(places, recipe, image)


@dataclass(frozen=True)
class Layout:
    """A folder of blobs in which every layer that was once moved is an empty stand-in."""

    folder: Path

    def take(self, places: Places, image: str) -> dict[str, Any]:
        """Copy what is missing of an image from the build's store; return its descriptor."""
        self.folder.mkdir(parents=True, exist_ok=True)
        index = self.folder / "index.json"
        index.unlink(missing_ok=True)
        source = f"containers-storage:[overlay@{places.cache / 'containers'}+{RUN_ROOT}]{image}"
        run([program("skopeo"), "copy", "--quiet", "--insecure-policy",
             "--dest-oci-accept-uncompressed-layers", source, f"oci:{self.folder}"])  # fmt: skip
        descriptor: dict[str, Any] = json.loads(index.read_text())["manifests"][0]
        return descriptor

    def blobs(self, manifest: dict[str, Any]) -> list[str]:
        """Return the digests of an image's parts that lie here in full."""
        content = self._read(manifest)
        layers = [layer["digest"] for layer in content["layers"]]
        full = dict.fromkeys(layer for layer in layers if layer not in self._emptied())
        return [manifest["digest"], content["config"]["digest"], *full]

    def empty(self, manifest: dict[str, Any]) -> None:
        """Replace an image's layers by stand-ins of the same size that take no room."""
        layers = [layer["digest"] for layer in self._read(manifest)["layers"]]
        # Noted first: when this is interrupted, a layer that containerd has keeps some room here.
        self._notes.write_text("\n".join(sorted(self._emptied().union(layers))) + "\n")
        for layer in layers:
            path = self.path(layer)
            size_bytes = path.stat().st_size
            with path.open("wb") as file:
                file.truncate(size_bytes)

    def path(self, digest: str) -> Path:
        """Return where a blob lies."""
        return self.folder / oci.blob_path(digest)

    @property
    def _notes(self) -> Path:
        return self.folder / "emptied"

    def _emptied(self) -> set[str]:
        return set(self._notes.read_text().split()) if self._notes.exists() else set()

    def _read(self, manifest: dict[str, Any]) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.path(manifest["digest"]).read_text())
        return content


def _import(places: Places, image: str, layout: Layout, manifest: dict[str, Any]) -> None:
    def write(stream: IO[bytes]) -> None:
        with tarfile.open(fileobj=stream, mode="w|") as tar:
            for name, content in oci.index_files(image, manifest):
                oci.add_bytes(tar, name, content)
            for digest in layout.blobs(manifest):
                tar.add(layout.path(digest), oci.blob_path(digest))

    containerd.import_stream(places, write)


def _drop_old_tags(places: Places, recipe: Recipe, image: str) -> None:
    order = places.store / f"{recipe.name}.tags"
    loaded = order.read_text().split() if order.exists() else []
    tags = [*(tag for tag in loaded if tag != image), image]
    containerd.delete_images(places, set(tags[:-TAGS_KEPT]))
    order.write_text("\n".join(tags[-TAGS_KEPT:]) + "\n")
