"""Image archives in the OCI layout: an image of one static program, and layouts to stream."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
INDEX = "application/vnd.oci.image.index.v1+json"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def program_image(name: str, program: Path) -> bytes:
    """Return the archive of an image called `name` that holds one static program and runs it."""
    layer = _tar([(program.name, program.read_bytes())])
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
    }
    config_bytes = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _descriptor(CONFIG, config_bytes),
        "layers": [_descriptor(LAYER, layer)],
    }
    manifest_bytes = json.dumps(manifest).encode()
    blobs = [(blob_path(digest(blob)), blob) for blob in (layer, config_bytes, manifest_bytes)]
    return _tar([*index_files(name, _descriptor(MANIFEST, manifest_bytes)), *blobs])


def index_files(name: str, manifest: dict[str, Any]) -> list[tuple[str, bytes]]:
    """Return the two files that make blobs a layout of one image called `name`.

    manifest  the descriptor of the image's manifest
    """
    entry = manifest | {"annotations": {"io.containerd.image.name": name}}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    return [
        ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        ("index.json", json.dumps(index).encode()),
    ]


def blob_path(digest_: str) -> str:
    """Return where a layout keeps the blob of this digest."""
    return f"blobs/{digest_.replace(':', '/')}"


def digest(content: bytes) -> str:
    """Return the digest by which a blob is known."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def add_bytes(tar: tarfile.TarFile, path: str, content: bytes) -> None:
    """Add one file to an archive that is being written."""
    member = tarfile.TarInfo(path)
    member.size, member.mode = len(content), 0o755
    tar.addfile(member, io.BytesIO(content))


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


def _tar(files: Iterable[tuple[str, bytes]]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in files:
            add_bytes(tar, path, content)
    return archive.getvalue()
