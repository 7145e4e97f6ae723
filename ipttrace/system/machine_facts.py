"""Reading what all namespaces of the machine share; nothing is changed by it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from ipttrace import __version__
from ipttrace.checkup.facts import Machine, Privileges, Program, Tracefs
from ipttrace.errors import IptTraceError
from ipttrace.netfilter import Backend
from ipttrace.system import commands
from ipttrace.system.capabilities import NEEDED, STATUS, missing_privileges
from ipttrace.system.commands import Running
from ipttrace.system.kernel_parts import read_parts
from ipttrace.system.nfnetlink import NETLINK_NETFILTER
from ipttrace.system.reading import attempt, text_of

TUN = Path("/dev/net/tun")
MOUNTS = Path("/proc/self/mounts")
FILE_SYSTEMS = Path("/proc/filesystems")
USUAL_MOUNT = "/sys/kernel/tracing"
HOST_FILE = Path("/proc/sys/kernel")
PROBED_EVENT = "events/skb/kfree_skb/format"

UID_MAP = Path("/proc/self/uid_map")
ALL_IDS = ["0", "0", "4294967295"]
"""The map of the first user namespace (user_namespaces(7))."""

SWITCHES = {
    Path("/proc/sys/user/max_user_namespaces"): "0",
    Path("/proc/sys/kernel/unprivileged_userns_clone"): "0",
    Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"): "1",
}
"""Settings of Linux, Debian and Ubuntu, and the value that keeps users from making namespaces."""

BINARIES = {"xtables-legacy-multi": Backend.LEGACY, "xtables-nft-multi": Backend.NFT}
"""The programs that all names of iptables are links to."""

PROGRAMS = ("iptables", "ip6tables", "iptables-legacy", "iptables-nft", "nft")
NETLINK_SOCKETS = Path("/proc/net/netlink")
VERSION = re.compile(r"\bv(\d[\w.-]*)")


def read_machine() -> Machine:
    """Return what can be read."""
    release = os.uname().release
    return Machine(
        release=release,
        software={"ipttrace": __version__, "Python": ".".join(map(str, sys.version_info[:3]))},
        programs=_programs(),
        components=read_parts(release),
        tracefs=attempt(_tracefs),
        privileges=_privileges(),
        tun=refusal(TUN, os.R_OK | os.W_OK),
    )


def refusal(path: Path, mode: int) -> str | None:
    """Return why a file cannot be used (access(2)), None if it can."""
    if os.access(path, mode):
        return None
    return "Permission denied" if path.exists() else "No such file or directory"


# -- programs


def _programs() -> dict[str, Program]:
    paths = {name: path for name in PROGRAMS if (path := commands.find(name)) is not None}
    asked = {name: _ask(name) for name, path in paths.items() if _may_ask(path)}
    return {name: _program(path, asked.get(name)) for name, path in paths.items()}


def _may_ask(path: str) -> bool:
    """Return whether to ask for a version loads nothing.

    nft and iptables-nft open a socket of NETLINK_NETFILTER first, which loads nfnetlink where
    that is a module (netlink_create in net/netlink/af_netlink.c).
    """
    return _binary(path) is Backend.LEGACY or _has_nfnetlink()


def _binary(path: str) -> Backend | None:
    return BINARIES.get(Path(os.path.realpath(path)).name)


def _has_nfnetlink() -> bool:
    try:
        rows = NETLINK_SOCKETS.read_text().splitlines()[1:]
    except OSError:
        return False
    return any(row.split()[1:2] == [str(NETLINK_NETFILTER)] for row in rows)


def _ask(name: str) -> Running | None:
    try:
        return commands.start([name, "-V"], what=f"cannot ask {name} for its version")
    except IptTraceError:
        return None


def _program(path: str, asked: Running | None) -> Program:
    try:
        said = asked.output() if asked else ""
    except IptTraceError:
        said = ""
    version = VERSION.search(said)
    told = Backend.NFT if "(nf_tables)" in said else Backend.LEGACY if "(legacy)" in said else None
    return Program(_binary(path) or told, version[1] if version else None)


# -- tracefs


def _tracefs() -> Tracefs:
    mounted = [
        words[1]
        for line in MOUNTS.read_text().splitlines()
        if (words := line.split())[2] == "tracefs"
    ]
    if not mounted:
        return Tracefs(supported="\ttracefs\n" in (text_of(FILE_SYSTEMS) or ""))
    path = USUAL_MOUNT if USUAL_MOUNT in mounted else mounted[0]
    return Tracefs(supported=True, path=path, refusal=_tracefs_refusal(Path(path)))


def _tracefs_refusal(path: Path) -> str | None:
    """Return why it cannot be used; kernel_lockdown(7) refuses only to open a file."""
    try:
        (path / PROBED_EVENT).read_text()
    except OSError as error:
        return error.strerror
    return refusal(path / "instances", os.W_OK | os.X_OK)


# -- privileges


def _privileges() -> Privileges:
    try:
        missing = missing_privileges(STATUS.read_text())
        first = UID_MAP.read_text().split() == ALL_IDS
    except OSError:
        missing, first = list(NEEDED.values()), True
    return Privileges(tuple(missing), first, _may_unshare(), _is_host_root())


def _is_host_root() -> bool:
    """Tell whether root's own file is ours: a user namespace shows another's as nobody's."""
    return os.geteuid() == 0 == HOST_FILE.stat().st_uid


def _may_unshare() -> bool:
    try:
        return all((text_of(path) or "").strip() != off for path, off in SWITCHES.items())
    except OSError:
        return False
