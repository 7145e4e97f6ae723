"""The findings of a check-up as lines for people: a state in a word, what was found, what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ipttrace.checkup.finding import Finding, State
from ipttrace.render.rules_table import count_words
from ipttrace.render.style import Style, paint
from ipttrace.render.table import GAP, pad, wrap

STYLES = {State.OK: Style.GOOD, State.NOTE: Style.OPEN, State.PROBLEM: Style.BAD}
TO_DO = "do: "


def checkup_lines(findings: Sequence[Finding], *, width: int | None, color: bool) -> Iterator[str]:
    """Yield the findings in lines of at most `width` columns, and how many are not ok."""
    states = max(len(state) for state in State)
    topics = max((len(each.topic) for each in findings), default=0)
    for each in findings:
        state = paint(each.state, STYLES[each.state], color) + pad("", states - len(each.state))
        lead = f"{GAP}{state}{GAP}{pad(each.topic, topics)}{GAP}"
        margin = len(GAP) * 3 + states + topics
        yield from _hanging(lead, margin, each.text, width)
        if each.advice is not None:
            indent = GAP * 2 + pad("", states)
            yield from _hanging(indent + TO_DO, len(indent + TO_DO), each.advice, width)
    yield ""
    yield f"{GAP}{_total(findings)}"


def _hanging(lead: str, margin: int, text: str, width: int | None) -> Iterator[str]:
    """Yield `text` after `lead`, which is `margin` columns wide, its other lines below itself."""
    room = None if width is None else width - margin
    first, *rest = wrap(text, room, indent="")
    yield lead + first
    yield from (pad("", margin) + line.removeprefix(GAP) for line in rest)


def _total(findings: Sequence[Finding]) -> str:
    counts = {state: sum(each.state is state for each in findings) for state in State}
    if counts[State.OK] == len(findings):
        return "nothing stands in the way of a trace"
    problems = count_words(counts[State.PROBLEM], "problem")
    return f"{problems}, {count_words(counts[State.NOTE], 'note')}, the rest is ok"
