"""Whether a namespace takes what is sent to its IPv6 addresses.

The kernel enters the local route of a new address by deferred work, also where no duplicates are
looked for (addrconf_dad_work in net/ipv6/addrconf.c); until then packets to it are lost.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

IFA_F_TENTATIVE = 0x40
"""uapi/linux/if_addr.h; the fifth column of if_inet6."""

RTF_LOCAL = 0x80000000
"""uapi/linux/ipv6_route.h; the ninth column of ipv6_route."""

ADDRESSES = Path("/proc/thread-self/net/if_inet6")
ROUTES = Path("/proc/thread-self/net/ipv6_route")


def all_in_use(interfaces: Container[str] | None = None) -> bool:
    """Return whether each address of the calling thread's namespace is; all are if there is none.

    Interfaces that are down or have no carrier have addresses that are not; with `interfaces` only
    the addresses of these are looked at.
    """
    addresses = [row for row in _rows(ADDRESSES) if interfaces is None or row[5] in interfaces]
    local = {row[0] for row in _rows(ROUTES) if int(row[8], 16) & RTF_LOCAL}
    return all(row[0] in local and not int(row[4], 16) & IFA_F_TENTATIVE for row in addresses)


def _rows(table: Path) -> list[list[str]]:
    return [line.split() for line in table.read_text().splitlines()] if table.exists() else []
