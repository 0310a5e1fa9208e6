"""What the machine must bring: Linux, root, a few Debian packages, Go. Installs or explains."""

import os
import platform
import re
import shutil
from pathlib import Path

from e2e.cluster.progress import CannotContinue, run, step

# The program that shows that the package, or another one like it, is there.
RUN_PACKAGES = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "nft": "nftables",
    "ip": "iproute2",
    "openssl": "openssl",
}
BUILD_PACKAGES = {
    "buildah": "buildah",
    "skopeo": "skopeo",
    "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
}
API_SERVER_PACKAGES = {"etcd": "etcd-server", "openssl": "openssl"}
# What these packages would start at once and at every boot, though we run our own.
SERVICES = {"etcd-server": "etcd", "containerd": "containerd"}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OLDEST_GO = (1, 21)  # from here on Go fetches by itself the newer toolchain that a go.mod asks for


def require_linux() -> None:
    """Refuse other systems, in words that name the way out."""
    if platform.system() != "Linux":
        raise CannotContinue(
            f"the embedded cluster runs on Linux only, not on {platform.system()}; "
            "name a cluster of yours instead: CLUSTER=current CONTEXT=<kubectl context>"
        )


def require_root() -> None:
    """Refuse without root, which containers, interfaces and mounts need."""
    require_linux()
    if os.geteuid() != 0:
        raise CannotContinue(
            "the embedded cluster makes containers, interfaces and mounts: run it as root (sudo), "
            "or name a cluster of yours: CLUSTER=current CONTEXT=<kubectl context>"
        )


def find(program: str) -> Path | None:
    """Return where a program lies, the system's folders included, or None."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
    if path is None and program.startswith("/") and Path(program).exists():
        return Path(program)
    return Path(path) if path else None


def program(name: str) -> Path:
    """Return where a program lies; raises CannotContinue when it is missing."""
    path = find(name)
    if path is None:
        raise CannotContinue(f"the program {name} is missing: {_how_to_install({name})}")
    return path


def install(packages: dict[str, str]) -> None:
    """Install the Debian packages whose program is missing; quick when none is."""
    missing = {name for name in packages if find(name) is None}
    if not missing:
        return
    if os.geteuid() != 0 or find("apt-get") is None:
        raise CannotContinue(f"{', '.join(sorted(missing))} missing: {_how_to_install(missing)}")
    wanted = sorted({packages[name] for name in missing})
    with step(f"Installing Debian packages: {' '.join(wanted)}"):
        quietly = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update"], env=quietly)
        # --no-remove: where another vendor's package is in the way, stop rather than remove it.
        run(["apt-get", "install", "-y", "--no-remove", "--no-install-recommends", *wanted],
            env=quietly, timeout_s=1200)  # fmt: skip
    if Path("/run/systemd/system").is_dir():
        for package in wanted:
            if package in SERVICES:
                run(["systemctl", "disable", "--now", SERVICES[package]])


def _how_to_install(programs: set[str]) -> str:
    known = RUN_PACKAGES | BUILD_PACKAGES
    return f"apt-get install {' '.join(sorted({known.get(name, name) for name in programs}))}"


def require_go() -> Path:
    """Return the go program; raises CannotContinue when it is missing or too old."""
    go = find("go") or find("/usr/local/go/bin/go")
    wish = "Go 1.26 or newer is needed to build Kubernetes, helm and CoreDNS from source"
    if go is None:
        raise CannotContinue(f"{wish}: install it and put its bin folder on PATH")
    version = run([go, "version"], env=os.environ | {"GOTOOLCHAIN": "local"})
    found = re.search(r"go(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_GO:
        raise CannotContinue(f"{wish}; {go} is {version.strip()}: install a newer one")
    return go
