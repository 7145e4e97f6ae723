"""The elements of verdict maps in the output of `nft -a -y list ruleset`, named and in rules.

map services {                                  udp dport vmap { 53 : accept, 80 : jump web }
    type inet_service : verdict
    elements = { 5000 : jump open, 5001 : drop }
}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from ipttrace.ruleset import MapElement

MAP = re.compile(r"\tmap (\S+) \{(?: #.*)?\Z")
_ELEMENTS = re.compile(r"\belements = \{ (.*?) \}\Z")
_IN_RULE = re.compile(r"\bvmap \{ (.*?) \}")
_BY_NAME = re.compile(r"\bvmap @(\S+)")
_COMMENT = re.compile(r' comment "[^"]*"\Z')
_SEPARATOR = re.compile(r'("[^"]*")|(,\s*)')
_STATEMENTS = re.compile(r"\s(?:counter|comment|expires|last|limit|quota|timeout)\s.*")
"""What nft prints of an element behind its key (nft(8), SET and MAP)."""

Maps = Mapping[str, tuple[MapElement, ...]]
"""By name, of one table."""


def named_elements(body: Iterator[str]) -> tuple[MapElement, ...]:
    """Return the elements of a map whose lines these are."""
    found = _ELEMENTS.search(" ".join(line.strip() for line in body))
    return _elements(found[1]) if found else ()


def rule_elements(text: str, maps: Maps) -> tuple[MapElement, ...]:
    """Return the elements of a rule's verdict map; none if it has none, or two."""
    text = _COMMENT.sub("", text)
    written = _IN_RULE.findall(text)
    names = _BY_NAME.findall(text)
    if len(written) + len(names) != 1:
        return ()
    return _elements(written[0]) if written else maps.get(names[0], ())


def _elements(text: str) -> tuple[MapElement, ...]:
    return tuple(element for each in _split(text) if (element := _element(each)) is not None)


def _split(text: str) -> Iterator[str]:
    """Yield the parts between commas that are not in quotes."""
    start = 0
    for match in _SEPARATOR.finditer(text):
        if match[2] is not None:
            yield text[start : match.start()]
            start = match.end()
    yield text[start:]


def _element(text: str) -> MapElement | None:
    key, colon, verdict = text.strip().rpartition(" : ")
    return MapElement(_STATEMENTS.sub("", key), verdict.strip()) if colon else None
