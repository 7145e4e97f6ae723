"""A lab as a YAML file: a topology, the probes to send, and what is expected of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ipttrace.errors import UsageError
from ipttrace.lab.topology import Host, Link, Part, Topology
from ipttrace.netfilter import Backend
from ipttrace.path import Outcome
from ipttrace.probe import ProbeSpec, parse_endpoint, parse_flags, validate

LIBRARY = Path(__file__).parent / "library"


class Expectation(Part, frozen=True):
    """What must come out; a field that is left out may be anything."""

    outcome: Outcome | None = None
    cause: str | None = None
    client: str | None = None
    netns: str | None = None
    """Where the outcome is looked at; without it the last namespace that is traced."""

    def __post_init__(self) -> None:
        if self.outcome is None and self.cause is None and self.client is None:
            raise ValueError("nothing is expected: give `outcome`, `cause` or `client`")


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
    tcp_flags: str = msgspec.field(name="tcp-flags", default="SYN")
    size: int | None = None
    ttl: int | None = None
    count: int = 1
    let_out: bool = msgspec.field(name="let-out", default=False)
    wait: float = 2.0

    def __post_init__(self) -> None:
        if not self.netns:
            raise ValueError("`netns` is empty: name at least one namespace to trace")
        try:
            self.spec()
        except UsageError as error:
            raise ValueError(str(error)) from error

    def spec(self) -> ProbeSpec:
        """Return the probe, with the lab's own names of namespaces; raises UsageError."""
        protocol, _, target = self.send.partition(" ")
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


class Scenario(Part, frozen=True, kw_only=True):
    """A lab with its probes."""

    name: str
    title: str
    about: str = ""
    backends: tuple[Backend, ...] = (Backend.LEGACY, Backend.NFT)
    """Those it can be run on; the first one is taken unless told otherwise."""
    namespaces: dict[str, Host]
    links: tuple[Link, ...] = ()
    probes: tuple[LabProbe, ...] = ()

    def __post_init__(self) -> None:
        if not self.backends:
            raise ValueError("`backends` is empty: name legacy, nft or both")
        topology = self.topology
        for probe in self.probes:
            named = (*probe.netns, probe.from_netns, probe.expect.netns)
            for name in named:
                if name is not None and name not in topology.namespaces:
                    raise ValueError(f"probe {probe.name!r} names namespace {name!r}: not there")
            if probe.expect.netns is not None and probe.expect.netns not in probe.netns:
                raise ValueError(f"probe {probe.name!r} is not traced in {probe.expect.netns!r}")

    @property
    def topology(self) -> Topology:
        """What is to be built."""
        return Topology(self.namespaces, self.links)


def library() -> dict[str, Path]:
    """Return the labs that ship with the tool, name to file."""
    return {path.stem: path for path in sorted(LIBRARY.glob("*.yaml"))}


def load_scenario(name: str) -> Scenario:
    """Read a lab of the library by its name, or any file; raises UsageError."""
    path = library().get(name) or Path(name)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read lab {name!r}: {error.strerror}",
            f"Give a file, or one of {', '.join(library())}.",
        ) from error
    return parse_scenario(text, str(path))


def parse_scenario(text: bytes | str, file: str) -> Scenario:
    """Return the lab that `text` describes; raises UsageError naming file and field."""
    try:
        return msgspec.convert(_yaml(text, file), Scenario)
    except msgspec.ValidationError as error:
        raise UsageError(f"cannot use lab {file}: {error}", "Correct the file.") from error


def _yaml(text: bytes | str, file: str) -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise UsageError(f"cannot read lab {file}: not YAML: {problem}") from error
