"""The settings that decide what becomes of a packet, in the order in which they are to be set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

OF_IPV4 = (
    "ip_forward",
    "ip_nonlocal_bind",
    "ip_default_ttl",
    "ip_local_port_range",
    "ip_unprivileged_port_start",
    "ip_early_demux",
    "icmp_echo_ignore_all",
    "icmp_echo_ignore_broadcasts",
    "icmp_ratelimit",
    "icmp_ratemask",
    "fwmark_reflect",
    "tcp_fwmark_accept",
    "tcp_syncookies",
    "tcp_l3mdev_accept",
    "udp_l3mdev_accept",
    "raw_l3mdev_accept",
    "fib_multipath_hash_policy",
)
OF_IPV6 = ("bindv6only", "ip_nonlocal_bind", "fwmark_reflect", "icmp/echo_ignore_all")
OF_INTERFACES = {
    "ipv4": (
        "forwarding",
        "rp_filter",
        "route_localnet",
        "accept_local",
        "accept_source_route",
        "src_valid_mark",
        "arp_filter",
        "arp_ignore",
        "arp_announce",
        "proxy_arp",
        "log_martians",
        "send_redirects",
    ),
    "ipv6": ("disable_ipv6", "forwarding", "force_forwarding", "accept_source_route", "hop_limit"),
}
OF_CONNTRACK = (
    "nf_conntrack_tcp_be_liberal",
    "nf_conntrack_tcp_loose",
    "nf_conntrack_tcp_ignore_invalid_rst",
    "nf_conntrack_checksum",
    "nf_conntrack_helper",
    "nf_conntrack_log_invalid",
)
OF_BRIDGES = (
    "bridge-nf-call-iptables",
    "bridge-nf-call-ip6tables",
    "bridge-nf-call-arptables",
    "bridge-nf-filter-vlan-tagged",
    "bridge-nf-pass-vlan-input-dev",
)

FOLDERS = (
    ("net/ipv4", OF_IPV4),
    ("net/ipv6", OF_IPV6),
    ("net/netfilter", OF_CONNTRACK),
    ("net/bridge", OF_BRIDGES),
)
PLAIN = {f"{folder}/{name}" for folder, names in FOLDERS for name in names}
CONF = re.compile(r"net/(ipv4|ipv6)/conf/([^/]+)/([^/]+)\Z")
SWAPPED = str.maketrans("./", "/.")
"""`.` and `/` change places between a setting's name and its path, as in sysctl(8)."""


def path_of(name: str) -> str:
    """Return the path below /proc/sys of a setting."""
    return name.translate(SWAPPED)


def name_of(path: str) -> str:
    """Return the name of a setting at a path below /proc/sys."""
    return path.translate(SWAPPED)


def matters(name: str) -> bool:
    """Tell whether a setting decides what becomes of a packet."""
    path = path_of(name)
    if path in PLAIN:
        return True
    match = CONF.match(path)
    return match is not None and match[3] in OF_INTERFACES[match[1]]


def interface_of(name: str) -> str | None:
    """Return the interface that a setting is of, `all` and `default` among them."""
    match = CONF.match(path_of(name))
    return match[2] if match else None


def paths_of_interfaces(interfaces: Iterable[str]) -> list[str]:
    """Return the paths of the settings that each interface has, `all` and `default` first."""
    names = dict.fromkeys(("all", "default", *interfaces))
    return [
        f"net/{version}/conf/{interface}/{setting}"
        for version, settings in OF_INTERFACES.items()
        for interface in names
        for setting in settings
    ]


def in_order(sysctls: Mapping[str, str]) -> dict[str, str]:
    """Return them so that none undoes another: ip_forward sets all interfaces', `all` may too."""

    def rank(name: str) -> int:
        match = CONF.match(path_of(name))
        if match is None:
            return 0
        return {"all": 1, "default": 2}.get(match[2], 3)

    return dict(sorted(sysctls.items(), key=lambda item: rank(item[0])))
