"""The counters of a namespace that tell of dropped packets, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

PROC_NET = Path("/proc/thread-self/net")
PAIRED = ("snmp", "netstat")
"""A line of names, then one of numbers, each after the name of its group."""
PLAIN = ("snmp6",)
"""A name and a number a line."""
PER_CPU = {"stat/nf_conntrack": "nf_conntrack", "stat/rt_cache": "rt_cache"}
"""A line of names, then one of hexadecimal numbers for each processor."""


def read_counters(root: Path = PROC_NET) -> dict[str, int]:
    """Return the counters of the calling thread's namespace: `TcpExt.ListenDrops`, `Ip6InNoRoutes`.

    Those of files that this kernel does not have are left out.
    """
    found: dict[str, int] = {}
    for name in PAIRED:
        found.update(_paired(_lines(root / name)))
    for name in PLAIN:
        words = (line.split() for line in _lines(root / name))
        found.update({pair[0]: int(pair[1]) for pair in words if len(pair) == 2})
    for name, group in PER_CPU.items():
        found.update(_per_cpu(_lines(root / name), group))
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _paired(lines: list[str]) -> Iterator[tuple[str, int]]:
    for names, numbers in zip(lines[::2], lines[1::2], strict=False):
        group, _, words = names.partition(":")
        for word, number in zip(words.split(), numbers.partition(":")[2].split(), strict=False):
            yield f"{group}.{word}", int(number)


def _per_cpu(lines: list[str], group: str) -> Iterator[tuple[str, int]]:
    if not lines:
        return
    rows = [[int(word, 16) for word in line.split()] for line in lines[1:]]
    for index, word in enumerate(lines[0].split()):
        yield f"{group}.{word}", sum(row[index] for row in rows if index < len(row))


def rises(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return by how much each counter rose that did."""
    return {
        name: number - before.get(name, 0)
        for name, number in after.items()
        if number > before.get(name, 0)
    }
