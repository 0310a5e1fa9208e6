import io
import json
import tarfile
from pathlib import Path

import pytest

from e2e.cluster import oci
from e2e.cluster.image_load import Layout


def _contents(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = [member for member in tar.getmembers() if member.isfile()]
        return {m.name: f.read() for m in members if (f := tar.extractfile(m))}


def test_an_image_of_one_program_holds_together(tmp_path: Path) -> None:
    (tmp_path / "pause").write_bytes(b"\x7fELF")
    files = _contents(oci.program_image("localhost/x/pause:1", tmp_path / "pause"))

    entry = json.loads(files["index.json"])["manifests"][0]
    manifest_bytes = files[oci.blob_path(entry["digest"])]
    manifest = json.loads(manifest_bytes)
    config = json.loads(files[oci.blob_path(manifest["config"]["digest"])])
    layer = files[oci.blob_path(manifest["layers"][0]["digest"])]

    assert entry["annotations"]["io.containerd.image.name"] == "localhost/x/pause:1"
    assert oci.digest(manifest_bytes) == entry["digest"]
    assert config["rootfs"]["diff_ids"] == [oci.digest(layer)]
    assert config["config"]["Entrypoint"] == ["/pause"]
    assert _contents(layer) == {"pause": b"\x7fELF"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "blobs/sha256").mkdir(parents=True)
    return Layout(tmp_path)


def _put(layout: Layout, content: bytes) -> str:
    digest = oci.digest(content)
    layout.path(digest).write_bytes(content)
    return digest


def _image(layout: Layout, *layers: bytes) -> dict[str, str]:
    manifest = {
        "config": {"digest": _put(layout, b"config")},
        "layers": [{"digest": _put(layout, layer)} for layer in layers],
    }
    return {"digest": _put(layout, json.dumps(manifest).encode())}


def test_a_layer_that_was_moved_takes_no_room_and_does_not_travel_again(layout: Layout) -> None:
    lower, upper = b"torch" * 4000, b"code" * 1000
    first = _image(layout, lower)
    assert oci.digest(lower) in layout.blobs(first)

    layout.empty(first)
    stand_in = layout.path(oci.digest(lower)).stat()
    assert (stand_in.st_size, stand_in.st_blocks) == (len(lower), 0)

    second = _image(layout, upper)
    manifest = json.loads(layout.path(second["digest"]).read_text())
    manifest["layers"].insert(0, {"digest": oci.digest(lower)})
    both = {"digest": _put(layout, json.dumps(manifest).encode())}
    assert layout.blobs(both)[2:] == [oci.digest(upper)]
