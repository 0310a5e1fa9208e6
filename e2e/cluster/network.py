"""The node's address, the routes that keep the cluster on this machine, and their removal."""

import ipaddress
import json
import subprocess
from pathlib import Path
from typing import Any

from e2e.cluster.control_plane import SERVICE_RANGE
from e2e.cluster.node import NETWORK, NODE_ADDRESS, POD_RANGE
from e2e.cluster.prerequisites import find, program
from e2e.cluster.progress import CannotContinue, run

INTERFACE = "llmk8s0"
CNI_RESULTS = Path("/var/lib/cni/results")  # fixed in libcni
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
OUR_TABLE = "inet llm-operator-cluster"
TABLES = (OUR_TABLE, "ip kube-proxy", "ip6 kube-proxy")
STAY_INSIDE = f"""\
table {OUR_TABLE} {{
  chain forward {{
    type filter hook forward priority filter; policy accept;
    ip saddr {POD_RANGE} ip daddr != {{ {POD_RANGE}, {SERVICE_RANGE}, {NODE_ADDRESS} }} reject
  }}
}}
"""


def set_up(previous_forwarding: Path) -> None:
    """Make a bridge without ports, its routes and the rule that no pod's packet leaves the machine.

    Whether the machine forwarded before is kept in the file `previous_forwarding`.
    """
    ip = program("ip")
    _refuse_conflicts(json.loads(run([ip, "-json", "route", "show"])))
    run([ip, "link", "add", INTERFACE, "type", "bridge"])
    run([ip, "address", "add", f"{NODE_ADDRESS}/32", "dev", INTERFACE])
    run([ip, "link", "set", INTERFACE, "up"])
    for range_ in (POD_RANGE, SERVICE_RANGE):
        run([ip, "route", "add", range_, "dev", INTERFACE, "src", NODE_ADDRESS])
    previous_forwarding.write_text(FORWARDING.read_text())
    FORWARDING.write_text("1")
    run([program("nft"), "-f", "-"], input_text=STAY_INSIDE)


def _refuse_conflicts(routes: list[dict[str, Any]]) -> None:
    ours = [ipaddress.IPv4Network(range_) for range_ in (POD_RANGE, SERVICE_RANGE, NODE_ADDRESS)]
    for route in routes:
        if route["dst"] == "default" or route.get("dev") == INTERFACE:
            continue
        # A wider route, as of a VPN, gives way to ours; one inside of ours would break it.
        if any(ipaddress.IPv4Network(route["dst"]).subnet_of(network) for network in ours):
            raise CannotContinue(
                f"the route to {route['dst']} ({route.get('dev')}) lies in the cluster's ranges "
                f"{', '.join(map(str, ours))}: remove it, or use a cluster of yours "
                "(CLUSTER=current CONTEXT=<kubectl context>)"
            )


def tear_down(previous_forwarding: Path) -> None:
    """Remove whatever set_up, the network plugin and kube-proxy have made, in any state."""
    ip, nft = find("ip"), find("nft")
    if ip and (Path("/sys/class/net") / INTERFACE).exists():
        _attempt(ip, "link", "delete", INTERFACE)
    if nft:
        for table in TABLES:
            _attempt(nft, "delete", "table", *table.split())
    for leftover in CNI_RESULTS.glob(f"{NETWORK}-*-eth0"):
        container = leftover.name.removeprefix(f"{NETWORK}-").removesuffix("-eth0")
        (CNI_RESULTS / f"cni-loopback-{container}-lo").unlink(missing_ok=True)
        leftover.unlink()
    if previous_forwarding.exists() and previous_forwarding.read_text().strip() == "0":
        FORWARDING.write_text("0")


def _attempt(*command: str | Path) -> None:
    # Nothing to remove is success.
    subprocess.run([str(word) for word in command], capture_output=True, check=False)
