"""A lab as a YAML file: a topology, the probes to send, and what is expected of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Literal

import msgspec

from ipttrace.lab.host import Host
from ipttrace.lab.lab_probe import LabProbe
from ipttrace.lab.parts import (
    BadFieldError,
    FieldPath,
    LabBackend,
    Part,
    check,
    check_printable,
    check_unique,
    words_of,
)
from ipttrace.lab.reading import read_bytes, read_document, typed
from ipttrace.lab.rules import check_nft_text, check_words
from ipttrace.lab.source import Source
from ipttrace.lab.topology import Link, Topology

LIBRARY = Path(__file__).parent / "library"
LAB_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}\Z")
REFUSABLE = re.compile(r"(ip6?tables(-legacy|-nft)?|nft)\Z")
Group = Literal["redirect-article", "pictures-article", "asked", "causes"]


class Verdict(StrEnum):
    """Whether the kernel agrees with a claim."""

    TRUE = "true"
    HALF = "half"
    FALSE = "false"


class Claim(Part, frozen=True):
    """What a recipe claims, and whether it is so."""

    claim: str
    verdict: Verdict | bool
    """As it is written; `truth` is what it means."""
    why: str = ""
    probes: tuple[str, ...] = ()
    """The probes that show it."""

    @property
    def truth(self) -> Verdict:
        """The verdict; YAML reads a bare true or false as a boolean."""
        return Verdict(str(self.verdict).lower())


class Refusal(Part, frozen=True):
    """A command that must be refused."""

    namespace: str
    run: str
    """`iptables`, `ip6tables` (of the run's backend, or with its name) or `nft`, and arguments."""
    says: str | dict[LabBackend, str] = ""
    """A part of the message; it may differ between the backends."""
    backends: tuple[LabBackend, ...] = ()
    """Only in runs on these; empty for all."""

    def __post_init__(self) -> None:
        check_printable(self.run, "run")
        check(self.run, words_of, "run")
        words = self.words
        if not words or not REFUSABLE.match(words[0]):
            raise BadFieldError("only iptables, ip6tables and nft can be run", "run")
        if words[0] == "nft":
            check_nft_text(" ".join(words[1:]), "run")
            if len(words) < 2 or words[1].startswith("-"):
                raise BadFieldError("nft is run with a command and no options", "run")
        else:
            check_words(words, "run")

    @property
    def words(self) -> tuple[str, ...]:
        """The program and its arguments."""
        return words_of(self.run)

    def message_on(self, backend: str) -> str:
        """Return what its message must hold in a run on `backend`."""
        if isinstance(self.says, str):
            return self.says
        return next((words for name, words in self.says.items() if name == backend), "")

    def runs_on(self, backend: str) -> bool:
        """Tell whether it is tried in a run on `backend`."""
        return not self.backends or backend in self.backends


class Scenario(Part, frozen=True, kw_only=True):
    """A lab with its probes."""

    name: str
    title: str
    about: str = ""
    group: Group = "asked"
    claims: tuple[Claim, ...] = ()
    backends: tuple[LabBackend, ...] = (LabBackend.LEGACY, LabBackend.NFT)
    """Those it is run on, one after the other, unless told otherwise."""
    namespaces: dict[str, Host]
    links: tuple[Link, ...] = ()
    refused: tuple[Refusal, ...] = ()
    probes: tuple[LabProbe, ...] = ()
    source: Source = msgspec.field(default_factory=Source)
    """Where it was read from; no field of the file."""

    def __post_init__(self) -> None:
        if not LAB_NAME.match(self.name):
            message = f"{self.name!r} cannot name a lab: use lower-case letters, digits and '-'"
            raise BadFieldError(message, "name")
        check_printable(self.title, "title")
        if not self.backends:
            raise BadFieldError("`backends` is empty: name legacy, nft or both", "backends")
        check_unique(self.backends, "backends", "backends")
        check_unique((probe.name for probe in self.probes), "probes", "probes")
        self._check_names(self.topology, self._named())
        self.check_probes(self.probes)
        self._check_claims()

    @property
    def topology(self) -> Topology:
        """What is to be built."""
        return Topology(self.namespaces, self.links, self.source)

    def _check_names(self, topology: Topology, named: Iterable[tuple[FieldPath, str]]) -> None:
        for path, name in named:
            if name not in topology.namespaces:
                there = ", ".join(topology.namespaces) or "none"
                raise BadFieldError(f"namespace {name!r} is not there: there are {there}", *path)

    def check_probes(self, probes: Sequence[LabProbe]) -> None:
        """Refuse probes that the lab cannot send; raises BadFieldError."""
        self._check_names(self.topology, self._named_by(probes))
        for place, probe in enumerate(probes):
            self._check_probe(probe, "probes", place)

    def _named(self) -> Iterator[tuple[FieldPath, str]]:
        """Yield every namespace that a refused command names."""
        for place, refusal in enumerate(self.refused):
            yield ("refused", place, "namespace"), refusal.namespace

    def _named_by(self, probes: Sequence[LabProbe]) -> Iterator[tuple[FieldPath, str]]:
        """Yield every namespace that a probe names."""
        for place, probe in enumerate(probes):
            path: FieldPath = ("probes", place)
            for number, name in enumerate(probe.netns):
                yield (*path, "netns", number), name
            if probe.from_netns is not None:
                yield (*path, "from"), probe.from_netns
            for number, change in enumerate(probe.change):
                yield (*path, "change", number, "namespace"), change.namespace

    def _check_probe(self, probe: LabProbe, *path: str | int) -> None:
        check_unique(probe.netns, "namespaces", *path, "netns")
        expect = probe.expect
        for field, part in (("", expect), ("legacy", expect.legacy), ("nft", expect.nft)):
            if part is not None and part.netns is not None and part.netns not in probe.netns:
                where = (*path, "expect", *filter(None, (field,)), "netns")
                message = f"probe {probe.name!r} is not traced in {part.netns!r}"
                raise BadFieldError(message, *where)
        for place, backend in enumerate(probe.backends):
            if backend not in self.backends:
                message = f"the lab is not run on {backend}"
                raise BadFieldError(message, *path, "backends", place)

    def _check_claims(self) -> None:
        names = {probe.name for probe in self.probes}
        for place, claim in enumerate(self.claims):
            for number, name in enumerate(claim.probes):
                if name not in names:
                    message = f"there is no probe {name!r}"
                    raise BadFieldError(message, "claims", place, "probes", number)


def library() -> dict[str, Path]:
    """Return the labs that ship with the tool, name to file."""
    return {path.stem: path for path in sorted(LIBRARY.glob("*.yaml"), key=lambda path: path.stem)}


def load_scenario(name: str) -> Scenario:
    """Read a lab of the library by its name, or any file; raises UsageError."""
    labs = library()
    alike = get_close_matches(name, labs, 3)
    hint = "Give a file, or a name of 'ipttrace lab list'"
    hint += f": do you mean {' or '.join(alike)}?" if alike else "."
    file = str(labs.get(name) or name)
    return parse_scenario(read_bytes(file, what="lab", hint=hint), file)


def parse_scenario(
    text: bytes | str, file: str, defaults: Mapping[str, object] | None = None
) -> Scenario:
    """Return the lab that `text` describes; raises UsageError naming file, line and field.

    `defaults` are the fields that it may leave out beside those of a file.
    """
    document, source = read_document(text, file, what="lab")
    if defaults and isinstance(document, dict):
        document = {**defaults, **document}
    return typed(document, Scenario, source, what="lab", extra={"source": source})
