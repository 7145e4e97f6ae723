"""Labs as lines for people: the list by groups, the table of claims, and one lab by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby

from ipttrace.decode.text import clean_text
from ipttrace.lab.drawing import draw
from ipttrace.lab.lab_probe import LabProbe
from ipttrace.lab.packet_ways import ways
from ipttrace.lab.rules import RuleFields
from ipttrace.lab.scenario import Claim, Scenario, Verdict
from ipttrace.lab.topology import Topology
from ipttrace.render.style import Style, paint
from ipttrace.render.table import GAP, columns, cut, pad, wrap

GROUPS = {
    "redirect-article": "from the article on port redirection",
    "pictures-article": "from the article with pictures",
    "asked": "from what people ask",
    "causes": "one for each other cause",
}
"""The groups of the list, in its order."""
STYLES = {Verdict.TRUE: Style.GOOD, Verdict.HALF: Style.OPEN, Verdict.FALSE: Style.BAD}
LINE = 100
"""The widest line of running text where there is no terminal."""


def list_lines(
    scenarios: Sequence[Scenario], up: Collection[str], *, width: int | None, color: bool
) -> Iterator[str]:
    """Yield the labs by groups, with what became of their claims, and the total."""
    names = max((len(each.name) for each in scenarios), default=0)
    for group, title in GROUPS.items():
        members = [each for each in scenarios if each.group == group]
        if not members:
            continue
        yield paint(title, Style.HEAD, color)
        for each in members:
            tail = claim_words(each.claims) + ("  (up)" if each.name in up else "")
            room = None if width is None else width - names - columns(tail) - 3 * len(GAP)
            text = clean_text(each.title)
            text = text if room is None else pad(cut(text, room), room)
            yield f"{GAP}{pad(each.name, names)}{GAP}{text}{GAP}{tail}".rstrip()
        yield ""
    claims = [claim for each in scenarios for claim in each.claims]
    yield f"{len(scenarios)} labs; claims: {claim_words(claims) or 'none'}"


def claim_words(claims: Sequence[Claim]) -> str:
    """Return how many claims are true, half true and false, in words."""
    counts = Counter(claim.truth for claim in claims)
    return ", ".join(f"{counts[each]} {each}" for each in Verdict if counts[each])


def claims_lines(scenarios: Sequence[Scenario], *, width: int | None, color: bool) -> Iterator[str]:
    """Yield the table of all claims: the verdict, the lab, the claim, and why."""
    ordered = [each for group in GROUPS for each in scenarios if each.group == group]
    names = max((len(each.name) for each in ordered if each.claims), default=0)
    for each in ordered:
        for claim in each.claims:
            lead = f"{_verdict(claim, color)}{GAP}{pad(each.name, names)}{GAP}"
            yield from _hanging(lead, 5 + names + 2 * len(GAP), claim.claim, width)
    yield ""
    total = [claim for each in ordered for claim in each.claims]
    yield f"{len(total)} claims: {claim_words(total) or 'none'}"


def show_lines(scenario: Scenario, *, width: int | None, color: bool) -> Iterator[str]:
    """Yield all that there is to know of a lab before it is run."""
    for line in _hanging("", 0, f"{scenario.name}: {scenario.title}", width):
        yield paint(line, Style.HEAD, color)
    yield ""
    yield from topology_lines(scenario.topology, width=width)
    yield ""
    yield from about_lines(scenario.about, width=width)
    yield ""
    if scenario.claims:
        yield paint("claims", Style.HEAD, color)
        for claim in scenario.claims:
            lead = f"{GAP}{_verdict(claim, color)}{GAP}"
            yield from _hanging(lead, 5 + 2 * len(GAP), claim.claim, width)
            if claim.why:
                yield from _hanging(pad("", 5 + 2 * len(GAP)), 5 + 2 * len(GAP), claim.why, width)
        yield ""
    yield from _rule_lines(scenario, color=color)
    for refusal in scenario.refused:
        yield f"{GAP}must be refused in {refusal.namespace}: {clean_text(refusal.run)}"
    yield from _probe_lines(scenario, width=width, color=color)


def about_lines(about: str, *, width: int | None) -> Iterator[str]:
    """Yield a lab's text as it is written; its paragraphs anew where a line would be too wide."""
    lines = [clean_text(line) for line in about.splitlines()]
    if all(columns(line) <= (width or LINE) for line in lines):
        yield from lines
        return
    for filled, paragraph in groupby(lines, key=lambda line: bool(line.strip())):
        yield from _hanging("", 0, " ".join(paragraph), width) if filled else [""]


def topology_lines(topology: Topology, *, width: int | None) -> Iterator[str]:
    """Yield the picture of a topology, or its links one by one where it is too wide."""
    picture = draw(topology, width)
    if width is None or picture.width <= width:
        yield from picture.lines()
        return
    for link in topology.links:
        near, far = (" ".join((end.namespace, end.interface, *end.addresses)) for end in link)
        yield from wrap(f"{near} --- {far}", width, indent="")


def _rule_lines(scenario: Scenario, *, color: bool) -> Iterator[str]:
    for name, host in scenario.namespaces.items():
        lines = [*_settings(host, host.sysctls)]
        if lines:
            yield paint(f"in {name}", Style.HEAD, color)
            yield from (f"{GAP}{clean_text(line)}" for line in lines)
            yield ""


def _settings(rules: RuleFields, sysctls: Mapping[str, str | int]) -> Iterator[str]:
    """Yield rules and settings, each as the command that makes it, or after the program's name."""
    for program in ("iptables", "ip6tables"):
        for field in (program, f"{program}_legacy", f"{program}_nft"):
            texts, label = getattr(rules, field), field.replace("_", "-")
            if isinstance(texts, str):
                texts, label = texts.splitlines(), f"{label}-restore:"
            yield from (f"{label} {text}" for text in texts if text.strip())
    yield from (f"nft: {line}" for line in rules.nftables.splitlines() if line.strip())
    yield from (f"sysctl {setting}={value}" for setting, value in sysctls.items())


def _changes(probe: LabProbe) -> Iterator[str]:
    """Yield what is done before a probe is sent."""
    for change in probe.change:
        lines = [*_settings(change, change.sysctls)]
        if change.link is not None:
            lines.append(f"{change.link.interface} {'up' if change.link.up else 'down'}")
        yield from (f"first in {change.namespace}: {line}" for line in lines)


def _probe_lines(scenario: Scenario, *, width: int | None, color: bool) -> Iterator[str]:
    yield paint("probes", Style.HEAD, color)
    paths = dict(ways(scenario))
    for probe in scenario.probes:
        expected = probe.expect
        words = (expected.outcome, expected.cause, expected.client)
        end = ", ".join(dict.fromkeys(str(word) for word in words if word is not None))
        way = clean_text(f"{paths[probe.name]}: {probe.send}")
        lead = f"{GAP}{clean_text(probe.name)}{GAP}"
        yield from _hanging(lead, columns(lead), f"{way}{f' -> {end}' if end else ''}", width)
        yield from (f"{GAP * 2}{clean_text(line)}" for line in _changes(probe))
        if probe.say:
            yield from _hanging(GAP * 2, 2 * len(GAP), probe.say, width)


def _verdict(claim: Claim, color: bool) -> str:
    return paint(claim.truth, STYLES[claim.truth], color) + pad("", 5 - len(claim.truth))


def _hanging(lead: str, margin: int, text: str, width: int | None) -> Iterator[str]:
    """Yield `text` after `lead`, which is `margin` columns wide, its other lines below itself."""
    room = (width or LINE) - margin
    first, *rest = wrap(clean_text(" ".join(text.split())), room, indent="") or [""]
    yield lead + first
    yield from (pad("", margin) + line.strip() for line in rest)
