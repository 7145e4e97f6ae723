"""Independent readers of what the kernel itself says of packets: nothing of ipttrace reads here.

`Monitor` takes the text of `nft -a monitor trace`, which can listen beside ipttrace and so tells
of the very same packets.  `trace_socket` has a netlink socket of its own, also for the log group,
which one program alone can hold: it tells of an equal packet that is sent afterwards.
"""

from __future__ import annotations

import ipaddress
import re
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from tests.root.kernel import in_namespace, run
from tests.waiting import wait_until

OWN = "oracle"
"""The nft table that the tests add; its reports are never compared."""
ARRIVED = (OWN, "arrived")
"""A chain of it at the very end of INPUT."""


@dataclass(frozen=True, slots=True)
class Spot:
    """One report: which rule matched, or which chain ended.  Numbers are the user's, from 1."""

    backend: str
    family: str
    table: str
    chain: str
    event: str
    """`rule`, `return` or `policy`."""
    number: int | None = None

    def __str__(self) -> str:
        place = self.number or self.event
        return f"{self.backend} {self.family} {self.table}/{self.chain} {place}"


@dataclass(frozen=True, slots=True)
class Heard:
    """A report with what it says of its packet."""

    spot: Spot | None
    """None where no chain of the user's reported."""
    verdict: str | None = None
    """As ipttrace writes it; nft only."""
    mark: int | None = None
    headers: Headers | None = None
    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class Headers:
    """The addresses that a report shows; ports None in ICMP."""

    src: str
    dst: str
    sport: int | None
    dport: int | None


class Rules:
    """The user's rules by their kernel names, read while nothing of ipttrace stands there."""

    def __init__(self, netns: str, family: str) -> None:
        self.lengths: dict[tuple[str, str], int] = {}
        """Legacy: how many rules (table, chain) has."""
        self.handles: dict[tuple[str, str, str], list[int]] = {}
        """nft: the handles of (family, table, chain), in order."""
        self._returns: dict[tuple[str, str, str], list[int]] = {}
        """nft: the handles of its rules that return."""
        self.traced: set[tuple[str, str]] = set()
        """Legacy chains whose first rule is a TRACE rule of the tests'."""
        program = "iptables" if family == "ip" else "ip6tables"
        names = f"/proc/thread-self/net/{'ip' if family == 'ip' else 'ip6'}_tables_names"
        if in_namespace(netns).run(Path(names).read_text).strip():
            self._read_saved(run(f"{program}-legacy-save", netns=netns))
        self._read_listed(run("nft", "-a", "-y", "list", "ruleset", netns=netns))

    def add_trace_rule(self, chain: str) -> None:
        """Note that the first rule of `chain` in the legacy raw table is the tests' own."""
        self.traced.add(("raw", chain))

    def _read_saved(self, text: str) -> None:
        table = ""
        for line in text.splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith(":"):
                self.lengths[table, line[1:].split(" ")[0]] = 0
            elif line.startswith("-A "):
                self.lengths[table, line.split(" ")[1]] += 1

    def _read_listed(self, text: str) -> None:
        table = chain = ("", "")
        for line in text.splitlines():
            words = line.split()
            if words[:1] == ["table"]:
                table = (words[1], words[2])
            elif words[:1] == ["chain"]:
                chain = (*table, words[1])  # type: ignore[assignment]
                self.handles[chain] = []  # type: ignore[index]
            elif words[-3:-1] == ["#", "handle"]:
                self.handles[chain].append(int(words[-1]))  # type: ignore[index]
                if "return" in words:
                    self._returns.setdefault(chain, []).append(int(words[-1]))  # type: ignore[arg-type]

    def legacy(self, family: str, table: str, chain: str, number: int) -> Spot | None:
        """Return the rule, or the end of the chain: ip_tables numbers the end as one more rule.

        None if it is the TRACE rule that the tests put first (`traced`), or of a table made for it.
        """
        length = self.lengths.get((table, chain))
        number -= (table, chain) in self.traced
        if number == 0 or length is None:
            return None
        if number <= length:
            return Spot("legacy", family, table, chain, "rule", number)
        assert number == length + 1, f"{table}/{chain} has {length} rules, not {number}"
        end = "policy" if chain in BUILTIN else "return"
        return Spot("legacy", family, table, chain, end)

    def nft(self, family: str, table: str, chain: str, handle: int) -> Spot | None:
        """Return the rule, None if it is none of the user's."""
        known = self.handles.get((family, table, chain))
        if known is None or handle not in known:
            return None
        return Spot("nft", family, table, chain, "rule", known.index(handle) + 1)

    def nft_return(self, family: str, table: str, chain: str) -> Spot | None:
        """Return the rule that returned, None if it is none of the user's.

        On Linux 6.1 the monitor does not say which (NFT_TRACETYPE_RETURN): the number is None if
        several rules of the chain return.
        """
        known = self._returns.get((family, table, chain), [])
        if len(known) == 1:
            return self.nft(family, table, chain, known[0])
        return Spot("nft", family, table, chain, "rule") if known else None

    def nft_policy(self, family: str, table: str, chain: str) -> Spot | None:
        """Return the end of a base chain, None if it is neither the user's nor `ARRIVED`."""
        if (family, table, chain) not in self.handles and (table, chain) != ARRIVED:
            return None
        return Spot("nft", family, table, chain, "policy")


BUILTIN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")

# ------------------------------------------------------------------ nft monitor trace

LINE = re.compile(
    r"trace id (?P<id>\w+) (?P<family>\w+) (?P<table>\S+) (?P<chain>\S+) (?P<rest>.*)"
)
RULE = re.compile(r"(?:unknown )?rule (?:.*# )?handle (?P<handle>\d+) \(verdict (?P<verdict>\w+)")
POLICY = re.compile(r"policy (?P<verdict>\w+)(?: meta mark (?P<mark>0x[0-9a-f]+))?")
ADDRESS = re.compile(r"\b(?:ip6?) (saddr|daddr) (\S+)")
PORT = re.compile(r"\b(?:tcp|udp) (sport|dport) (\d+)")


class Monitor:
    """`nft -a monitor trace` in one namespace, from when it listens until it is closed."""

    def __init__(self, netns: str) -> None:
        self._process = in_namespace(netns).run(
            lambda: subprocess.Popen(
                ["nft", "-a", "monitor", "trace"], stdout=subprocess.PIPE, text=True
            )
        )
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        wait_until(self._listens, what="nft monitor listening")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(5)
        self._thread.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listens(self) -> bool:
        """Tell whether it is in NFNLGRP_NFTRACE (9)."""
        pid = str(self._process.pid)
        rows = Path("/proc", pid, "net/netlink").read_text().splitlines()[1:]
        fields = [row.split() for row in rows]
        return any(row[2] == pid and int(row[3], 16) & 1 << 8 for row in fields)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    def before(self, word: str) -> list[str]:
        """Return the lines before the first that has `word`, once there is one."""
        wait_until(lambda: any(word in line for line in list(self.lines)), what=f"{word} traced")
        lines = list(self.lines)
        return lines[: next(index for index, line in enumerate(lines) if word in line)]


def monitored(lines: Sequence[str], rules: Rules) -> list[Heard]:
    """Return the reports of the user's own rules and policies in the monitor's text."""
    heard: list[Heard] = []
    headers: dict[str, Headers] = {}
    for line in lines:
        found = LINE.match(line)
        assert found, f"not a line of nft monitor trace: {line!r}"
        if found["rest"].startswith("packet:"):
            shown = _headers_in(found["rest"])
            headers.update({found["id"]: shown} if shown else {})
            continue
        if found["rest"].startswith("verdict continue"):  # Linux 6.1 reports the end of a chain
            continue
        one = _heard_in(found, rules)
        if one.spot is not None:
            heard.append(replace(one, headers=headers.get(found["id"])))
    return heard


def _heard_in(line: re.Match[str], rules: Rules) -> Heard:
    place = line["family"], line["table"], line["chain"]
    if rule := RULE.match(line["rest"]):
        spot = rules.nft(*place, int(rule["handle"]))
        return Heard(spot, rule["verdict"].upper(), trace_id=line["id"])
    if line["rest"].startswith("verdict return"):
        return Heard(rules.nft_return(*place), "RETURN", trace_id=line["id"])
    policy = POLICY.match(line["rest"])
    assert policy, f"neither rule nor policy: {line[0]!r}"
    mark = int(policy["mark"] or "0", 16)
    return Heard(rules.nft_policy(*place), policy["verdict"].upper(), mark, None, line["id"])


def _headers_in(text: str) -> Headers | None:
    """Return the addresses, None where nft could not read them.

    It takes what is left in a copy's link layer for a header of another protocol.
    """
    address = {name: str(ipaddress.ip_address(value)) for name, value in ADDRESS.findall(text)}
    port = {name: int(value) for name, value in PORT.findall(text)}
    if len(address) < 2:
        return None
    return Headers(address["saddr"], address["daddr"], port.get("sport"), port.get("dport"))
