"""What a namespace holds that a probe must leave as it was, and the counters that it may move."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ipttrace.netfilter import Backend, PacketFamily
from tests.root.kernel import Iptables, in_namespace, run

Place = tuple[str, str, str, int]
"""Backend, table, chain, and number: 0 for the policy."""

OPERSTATE = re.compile(r" state \w+")
"""Follows the carrier up to a second later (linkwatch_event in net/core/link_watch.c)."""

LOGGERS = Path("/proc/sys/net/netfilter/nf_log")


@dataclass(frozen=True, slots=True)
class Footprint:
    """One moment of a namespace."""

    texts: Mapping[Place, str]
    """Each rule as its tool saves it, and each policy; `-` in user chains."""
    counters: Mapping[Place, int]
    """Packets; nft's policies count none."""
    settings: tuple[str, ...]
    """Links, queueing disciplines, nft tables, loggers."""

    def rises(self, later: Footprint) -> dict[Place, int]:
        """Return by how much each counter rose that both moments have."""
        both = self.counters.keys() & later.counters.keys()
        return {place: later.counters[place] - self.counters[place] for place in both}


def look(netns: str, family: PacketFamily, backends: Iterable[Backend]) -> Footprint:
    """Return how a namespace is now."""
    saved = [line for each in backends for line in _saved(each, Iptables(each).save(netns, family))]
    return Footprint(
        texts={place: text for place, text, _ in saved},
        counters={place: packets for place, _, packets in saved if packets is not None},
        settings=(
            OPERSTATE.sub("", run("ip", "-o", "link", netns=netns)),
            run("tc", "qdisc", netns=netns),
            run("nft", "list", "tables", netns=netns),
            *in_namespace(netns).run(_loggers),
        ),
    )


def check_untouched(before: Footprint, after: Footprint) -> None:
    """Fail unless a namespace is as it was; legacy keeps an empty raw table once it has one."""
    assert after.settings == before.settings
    gone = before.texts.items() - after.texts.items()
    new = dict(after.texts.items() - before.texts.items())
    assert not gone, f"changed rules: {gone}, {new}"
    assert {place[:2] for place in new} <= {(Backend.LEGACY, "raw")}, f"new: {new}"
    assert set(new.values()) <= {"ACCEPT"}, f"new: {new}"


def _loggers() -> tuple[str, ...]:
    """Return the nf_log settings of IPv4 and IPv6 in the calling thread's namespace."""
    return tuple((LOGGERS / number).read_text() for number in ("2", "10"))


def _saved(backend: Backend, text: str) -> Iterable[tuple[Place, str, int | None]]:
    """Yield each rule and policy that `iptables-save -c` printed, with its packets."""
    table = ""
    numbers: Counter[tuple[str, str]] = Counter()
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            name, policy, count = line[1:].split(" ")
            counts = backend is Backend.LEGACY and policy != "-"
            yield (backend, table, name, 0), policy, _packets(count) if counts else None
        elif line.startswith("["):
            count, _, rule = line.partition(" ")
            chain = rule.split(" ")[1]
            numbers[table, chain] += 1
            yield (backend, table, chain, numbers[table, chain]), rule, _packets(count)


def _packets(count: str) -> int:
    """Return the packets of `[packets:bytes]`."""
    return int(count[1:].split(":", maxsplit=1)[0])
