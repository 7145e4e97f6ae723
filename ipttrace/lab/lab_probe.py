"""A probe of a lab, and what is changed in the lab before it is sent."""

from __future__ import annotations

import msgspec

from ipttrace.errors import UsageError
from ipttrace.lab.expectation import Expectation
from ipttrace.lab.host import check_settings
from ipttrace.lab.parts import (
    BadFieldError,
    LabBackend,
    Part,
    check_interface_name,
    check_printable,
)
from ipttrace.lab.rules import RuleFields
from ipttrace.probe import ProbeSpec, parse_endpoint, parse_flags, validate


class LinkChange(Part, frozen=True):
    """An interface that goes down, or up again."""

    interface: str
    up: bool

    def __post_init__(self) -> None:
        check_interface_name(self.interface, "interface")


class Change(RuleFields, frozen=True, kw_only=True):
    """What becomes different in one namespace; it stays so for the probes after it."""

    namespace: str
    sysctls: dict[str, str | int] = msgspec.field(default_factory=dict)
    link: LinkChange | None = None

    def __post_init__(self) -> None:
        check_settings(self.sysctls, "sysctls")
        self.check_rules()
        rules = any(True for _ in self.rule_sources(LabBackend.BOTH))
        if not (rules or self.sysctls or self.link):
            raise BadFieldError("nothing is changed: give rules, `sysctls` or `link`")


class LabProbe(Part, frozen=True, kw_only=True):
    """One probe, in the words of `ipttrace probe`."""

    name: str
    send: str
    """`PROTO DST[:PORT]`."""
    netns: tuple[str, ...]
    """Where to trace, by the lab's own names."""
    expect: Expectation
    say: str = ""
    """What the probe shows, in one sentence."""
    src: str | None = None
    in_interface: str | None = msgspec.field(name="in", default=None)
    from_netns: str | None = msgspec.field(name="from", default=None)
    tcp_flags: str = "SYN"
    size: int | None = None
    ttl: int | None = None
    count: int = 1
    let_out: bool = False
    wait: float = 2.0
    backends: tuple[LabBackend, ...] = ()
    """Only in runs on these; empty for all."""
    change: tuple[Change, ...] = ()
    """Done in this order before the probe is sent."""
    needs_events: bool = False
    """Only the kernel's events (tracefs) prove what is expected: without root it is left out."""

    def __post_init__(self) -> None:
        check_printable(self.name, "name")
        if not self.netns:
            raise BadFieldError("`netns` is empty: name at least one namespace to trace", "netns")
        try:
            self.spec()
        except UsageError as error:
            raise ValueError(str(error)) from error

    def runs_on(self, backend: str) -> bool:
        """Tell whether it is sent in a run on `backend`."""
        return not self.backends or backend in self.backends

    def spec(self) -> ProbeSpec:
        """Return the probe, with the lab's own names of namespaces; raises UsageError."""
        protocol, _, target = self.send.strip().partition(" ")
        if not target:
            raise UsageError(
                f"cannot read {self.send!r}: the protocol or the address is missing",
                "Write PROTO DST[:PORT], as in tcp 198.51.100.1:80.",
            )
        dst, dport = parse_endpoint(target.strip())
        src, sport = parse_endpoint(self.src) if self.src else (None, None)
        return validate(
            ProbeSpec(
                protocol=protocol,
                dst=dst,
                dport=dport,
                src=src,
                sport=sport,
                in_interface=self.in_interface,
                from_netns=self.from_netns,
                netns=self.netns,
                size=self.size,
                ttl=self.ttl,
                count=self.count,
                let_out=self.let_out,
                wait=self.wait,
                tcp_flags=parse_flags(self.tcp_flags),
            )
        )
