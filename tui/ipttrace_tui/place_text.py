"""What is to be said of a namespace, and of a lab."""

from __future__ import annotations

from collections.abc import Iterator

from ipttrace.decode.text import clean_text
from ipttrace.inventory import Place, PlaceKind
from ipttrace.lab.listing import about_lines
from ipttrace.lab.parts import LabBackend
from ipttrace.lab.scenario import Scenario
from ipttrace_tui.explanation import Sentence
from ipttrace_tui.view_model import Tone
from ipttrace_tui.workbench import LabEntry, LabUp

KINDS = {
    PlaceKind.HERE: "the namespace that ipttrace runs in",
    PlaceKind.NAMED: "a namespace of ip netns",
    PlaceKind.LAB: "a namespace of a lab",
    PlaceKind.CONTAINER: "a container's namespace",
    PlaceKind.PROCESS: "the namespace of a process, without a name",
}


def place_sentences(place: Place) -> Iterator[Sentence]:
    """Yield what a namespace is, and its interfaces."""
    yield Sentence(clean_text(place.title), Tone.STRONG)
    about = f"{KINDS[place.kind]}{': ' + place.about if place.about else ''}"
    yield Sentence(clean_text(about), Tone.MUTED)
    if place.alias and place.name:
        yield Sentence(clean_text(f"its real name: {place.name}"), Tone.MUTED)
    if not place.interfaces:
        yield Sentence("no interface that we may see", Tone.WARN)
    for link in place.interfaces:
        state = "" if link.up else "  down"
        kind = f" ({link.kind})" if link.kind else ""
        words = f"{link.name}{kind}{state}  {'  '.join(link.addresses) or 'no address'}"
        yield Sentence(clean_text(words), label="interfaces")


def lab_sentences(
    lab: LabEntry, backend: LabBackend, up: LabUp | None, width: int
) -> Iterator[Sentence]:
    """Yield what a lab is about, in lines of `width` columns, and how it would be started."""
    if lab.scenario is None:
        yield Sentence(clean_text(lab.error), Tone.BAD)
        return
    yield Sentence(clean_text(lab.scenario.title), Tone.STRONG)
    if up is not None and up.name == lab.name:
        yield Sentence(f"● up with {up.backend}; x takes it down", Tone.GOOD)
    yield Sentence(_offer(lab.scenario, backend), Tone.MUTED)
    yield from map(Sentence, about_lines(lab.scenario.about.strip(), width=width))


def lab_details(lab: LabEntry) -> Iterator[Sentence]:
    """Yield what a lab claims, and what it sends."""
    if lab.scenario is None:
        return
    for claim in lab.scenario.claims:
        name = {"true": Tone.GOOD, "false": Tone.BAD}.get(claim.truth, Tone.WARN)
        yield Sentence(clean_text(f"{claim.truth}: {claim.claim}"), name, "claims")
    for probe in lab.scenario.probes:
        says = f"  {probe.say}" if probe.say else ""
        yield Sentence(clean_text(f"{probe.name}: {probe.send}{says}"), label="sends")


def _offer(scenario: Scenario, backend: LabBackend) -> str:
    others = [str(each) for each in scenario.backends if each is not backend]
    other = f"  (b: {', '.join(others)})" if others else ""
    return f"enter starts it with {backend} rules{other}"


def lab_words(lab: LabEntry) -> str:
    """Return all that a lab can be found by, without capitals."""
    known = lab.scenario
    words = (lab.name, known.title, known.group, known.about) if known else (lab.name, lab.error)
    return " ".join(words).casefold()
