"""A small root file system with Python, made of Debian packages, to stand in for `python:slim`.

For machines that reach Debian's packages but no image registry. apt resolves and verifies the
packages against an empty system; they are unpacked and no maintainer script is run, so what those
would have made (links, accounts, the CA bundle) is made here.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from e2e.cluster.progress import run

WANTED = (
    "busybox",  # a shell and small tools in 1 MB; the static one crashes when resolving names
    "ca-certificates",
    "libstdc++6",
    "netbase",
    "python3",
    "python3-pip",
    "tzdata",
)
# Pulled in by dependencies of scripts that are never run here, or of pip's build support.
LEFT_OUT = re.compile(
    r"(debconf|dpkg|gcc-\d+-base|libacl1|libdb5|libmd0|libpcre2|libselinux1|libzstd1|openssl"
    r"|perl-base|python3-(lib2to3|pkg-resources|setuptools|wheel)|readline-common|tar)(_|[.-]\d)"
)
# Patterns of what no program of ours reads: 15 MB.
UNREAD = (
    "usr/lib/*/gconv",
    "usr/share/bash-completion",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/pixmaps",
)
USER = 65532
FOLDERS = {
    "tmp": 0o1777,
    "var/tmp": 0o1777,
    "root": 0o700,
    "home/llm": 0o755,
    "run": 0o755,
    "proc": 0o555,
    "sys": 0o555,
    "dev": 0o755,
}


def make_root(root: Path, downloads: Path) -> None:
    """Fill the empty folder `root`; downloaded packages are kept in `downloads`."""
    root.mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for package in _download(downloads):
        if not LEFT_OUT.match(package.name):
            _unpack(package, root)
    for pattern in UNREAD:
        for folder in root.glob(pattern):
            shutil.rmtree(folder)
    _link_busybox(root)
    _write_system_files(root)


def _download(downloads: Path) -> list[Path]:
    archives = downloads / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    empty_system = downloads / "status"
    empty_system.touch()
    run(
        ["apt-get", "-y", "--no-install-recommends", "--download-only",
         "-o", f"Dir::State::status={empty_system}", "-o", f"Dir::Cache::archives={archives}",
         "-o", "APT::Sandbox::User=root", "install", *WANTED],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
    )  # fmt: skip
    return sorted(archives.glob("*.deb"))


def _unpack(package: Path, root: Path) -> None:
    # Not `dpkg -x`: it would replace the link /lib by a folder.
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as deb:
        subprocess.run(
            ["tar", "--extract", "--keep-directory-symlink", "--directory", root],
            stdin=deb.stdout,
            check=True,
        )


def _link_busybox(root: Path) -> None:
    busybox = next(path for path in root.glob("usr/bin/busybox*") if path.is_file())
    for applet in run([busybox, "--list"]).split():
        link = root / "usr/bin" / applet
        if not os.path.lexists(link):
            link.symlink_to(busybox.name)


def _write_system_files(root: Path) -> None:
    (root / "usr/bin/python").symlink_to("python3")
    for folder, mode in FOLDERS.items():
        path = root / folder
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    os.chown(root / "home/llm", USER, USER)
    etc = root / "etc"
    (etc / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\n"
        f"llm:x:{USER}:{USER}:llm:/home/llm:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/bin/false\n"
    )
    (etc / "group").write_text(f"root:x:0:\ntty:x:5:\nllm:x:{USER}:\nnogroup:x:65534:\n")
    (etc / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = etc / "ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_text("".join(path.read_text() for path in certificates))
