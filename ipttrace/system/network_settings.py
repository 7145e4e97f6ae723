"""The sysctls that decide what becomes of a packet, of the calling thread's namespace."""

from __future__ import annotations

from pathlib import Path

from ipttrace.netfilter import PacketFamily
from ipttrace.question import Question

SYS = Path("/proc/sys")
GLOBAL = {PacketFamily.IPV4: ("net/ipv4/ip_forward",), PacketFamily.IPV6: ()}
OF_INTERFACES = {
    PacketFamily.IPV4: ("forwarding", "rp_filter", "route_localnet", "accept_local"),
    PacketFamily.IPV6: ("forwarding", "force_forwarding", "disable_ipv6"),
}
"""Below conf/all and conf/<interface>.  force_forwarding is there since Linux 6.17."""


def read_settings(question: Question, root: Path = SYS) -> dict[str, str]:
    """Return the settings that concern a packet, by path; those that are not there are left out."""
    family = question.first.family
    folder = "ipv4" if family is PacketFamily.IPV4 else "ipv6"
    interfaces = ["all", *filter(None, (question.in_interface, question.out_interface))]
    names = [*GLOBAL[family]]
    names += [
        f"net/{folder}/conf/{interface}/{setting}"
        for interface in dict.fromkeys(interfaces)
        for setting in OF_INTERFACES[family]
    ]
    found = {name: _text(root / name) for name in names}
    return {name: text for name, text in found.items() if text is not None}


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
