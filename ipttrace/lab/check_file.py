"""What `ipttrace check` is given: a lab file, or probes against a lab, a twin or the live host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ipttrace.errors import UsageError
from ipttrace.lab.lab_probe import LabProbe
from ipttrace.lab.parts import BadFieldError, LabBackend, Part, check_printable, check_unique
from ipttrace.lab.reading import bad_field, read_bytes, read_document, typed
from ipttrace.lab.scenario import Scenario, library, load_scenario
from ipttrace.lab.source import Source

WHAT = "check"
TARGETS = ("lab", "twin", "live")
LIVE = "live"


class CheckProbe(LabProbe, frozen=True, kw_only=True):
    """A probe whose namespaces are those of its target.

    Without `netns` it is traced in the only namespace of a lab or twin, or on the live host in the
    namespace that the tool runs in.
    """

    netns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_printable(self.name, "name")
        for place, name in enumerate(self.netns):
            check_printable(name, "netns", place)
        try:
            self.spec()
        except UsageError as error:
            raise ValueError(str(error)) from error


class CheckFile(Part, frozen=True, kw_only=True):
    """Probes, and what they are sent against: exactly one of `lab`, `twin`, `live`."""

    title: str = ""
    lab: str | None = None
    """A name of the library, or a file, relative to this one."""
    twin: str | None = None
    """A snapshot or a save file, relative to this one."""
    live: bool = False
    """This very host: nothing of it is changed but for the trace itself."""
    backends: tuple[LabBackend, ...] = ()
    probes: tuple[CheckProbe, ...] = ()
    """A lab's own ones if there are none."""

    def __post_init__(self) -> None:
        check_printable(self.title, "title")
        named = [field for field in TARGETS if getattr(self, field)]
        if len(named) != 1:
            raise BadFieldError("give one of `lab`, `twin` and `live: true`", *named[1:2])
        if not self.probes and self.lab is None:
            raise BadFieldError("nothing is probed: give `probes`", "probes")
        check_unique((probe.name for probe in self.probes), "probes", "probes")
        check_unique(self.backends, "backends", "backends")
        if self.twin and LabBackend.BOTH in self.backends:
            place = self.backends.index(LabBackend.BOTH)
            raise BadFieldError("a twin is built on legacy or nft", "backends", place)
        if self.live:
            self._check_live()

    def _check_live(self) -> None:
        if self.backends:
            raise BadFieldError("a live host has the rules that it has", "backends")
        for place, probe in enumerate(self.probes):
            if probe.change:
                raise BadFieldError("a live host is never changed", "probes", place, "change")
            netns = probe.expect.netns
            if netns is not None and netns not in probe.netns:
                message = f"probe {probe.name!r} is not traced in {netns!r}"
                raise BadFieldError(message, "probes", place, "expect", "netns")


@dataclass(frozen=True, slots=True)
class Check:
    """One file to check, read and found good."""

    file: str
    """As the user named it."""
    title: str
    target: str
    """A lab's name, a twin's file as it is named in the check, or `live`."""
    probes: tuple[LabProbe, ...]
    backends: tuple[LabBackend, ...] = ()
    """Of its runs, one after the other; empty: the host's, or those the twin can have."""
    scenario: Scenario | None = None
    """The lab, with these probes."""
    twin: Path | None = None
    """Whose state is rebuilt."""

    @property
    def live(self) -> bool:
        """Whether it is this very host that is probed."""
        return self.scenario is None and self.twin is None

    @property
    def origin(self) -> str:
        """The file that describes the target, whatever way leads there; empty for this host."""
        file = self.scenario.source.file if self.scenario is not None else self.twin
        return str(Path(file).resolve()) if file else ""


def load_check(file: str) -> Check:
    """Read a lab of the library by its name, or a file of either kind; raises UsageError."""
    if file in library():
        return of_lab(file, load_scenario(file))
    return parse_check(read_bytes(file, what=WHAT), file)


def parse_check(text: bytes | str, file: str) -> Check:
    """Return the check that `text` describes; raises UsageError naming file, line and field."""
    document, source = read_document(text, file, what=WHAT)
    if not _is_check(document):
        scenario = typed(document, Scenario, source, what="lab", extra={"source": source})
        return of_lab(file, scenario)
    read = typed(document, CheckFile, source, what=WHAT)
    if read.lab is not None:
        return _against_lab(file, read, source)
    if read.twin is not None:
        twin = source.folder / read.twin
        title = read.title or f"twin of {read.twin}"
        return Check(file, title, read.twin, read.probes, read.backends, twin=twin)
    return Check(file, read.title or "this host", LIVE, read.probes)


def _is_check(document: Any) -> bool:
    """Tell a check from a lab: one that names its target; or that has nothing a lab must have."""
    if not isinstance(document, dict):
        return False
    return any(field in document for field in TARGETS) or "namespaces" not in document


def of_lab(file: str, scenario: Scenario) -> Check:
    """Return the check that a lab is by itself; raises UsageError if it sends no probe."""
    if not scenario.probes and not scenario.refused:
        raise UsageError(f"cannot check lab {file}: it has no probes", "Add `probes:` to it.")
    return Check(
        file,
        scenario.title,
        scenario.name,
        scenario.probes,
        scenario.backends,
        scenario=scenario,
    )


def _against_lab(file: str, read: CheckFile, source: Source) -> Check:
    name = str(read.lab)
    scenario = load_scenario(name if name in library() else str(source.folder / name))
    backends = read.backends or scenario.backends
    for place, backend in enumerate(backends):
        if backend not in scenario.backends:
            message = f"lab {scenario.name} is not run on {backend}"
            raise bad_field(source, ("backends", place), message, WHAT)
    if read.probes:
        probes = tuple(_in_only(probe, tuple(scenario.namespaces)) for probe in read.probes)
        for place, probe in enumerate(probes):
            if not probe.netns:
                message = f"`netns` is missing: lab {scenario.name} has several namespaces"
                raise bad_field(source, ("probes", place), message, WHAT)
        try:
            scenario.check_probes(probes)
        except BadFieldError as error:
            raise bad_field(source, error.path, str(error), WHAT) from error
        scenario = msgspec.structs.replace(scenario, probes=probes, claims=(), refused=())
    title = read.title or scenario.title
    return Check(file, title, scenario.name, scenario.probes, backends, scenario=scenario)


def _in_only(probe: CheckProbe, namespaces: tuple[str, ...]) -> CheckProbe:
    if probe.netns or len(namespaces) != 1:
        return probe
    return msgspec.structs.replace(probe, netns=namespaces)
