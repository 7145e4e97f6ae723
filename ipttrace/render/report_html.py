"""A run as one HTML page that needs nothing else: to send, to keep, to print.

Everything from outside is escaped, no script runs and nothing is fetched (the page forbids it to
itself), and it reads on a phone, in the dark and on paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from ipttrace.decode.text import clean_text
from ipttrace.path import PacketPath, Role
from ipttrace.render.about import About, shown
from ipttrace.render.plain import mark, why
from ipttrace.render.report_style import PAGE_STYLE
from ipttrace.render.style import Style
from ipttrace.render.svg import STYLE, svg_picture
from ipttrace.render.table import Row
from ipttrace.render.text import clients, fate_words, path_rows, remarks
from ipttrace.render.words import about, packet_words
from ipttrace.result import TraceResult

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Content Security Policy Level 3: no script, no picture, no font, no frame from anywhere."""
MARK_CLASSES = {">": "good", "x": "bad", "?": "open"}
NARROW = 46
"""Columns of the picture on a phone."""


def html_file(result: TraceResult, origin: About) -> bytes:
    """Return the whole page."""
    pick = shown(result)
    words_of = clients(result)
    sections = [
        _section(number, path, words_of.get(path.journey) if _begins(path) else None, origin.hop)
        for number, path in enumerate(pick.whole, 1)
    ]
    page = "\n".join(
        [
            _head(origin),
            f"<body><header><h1>{_html(origin.title)}</h1>",
            f"<p>{_html(origin.date)} · {_html(origin.tool)}</p></header><main>",
            *_warnings(result),
            *_contents(pick.whole),
            *sections,
            *_named(pick.named, pick.left_out),
            f"</main><footer><p>{_totals(result)}</p></footer></body></html>\n",
        ]
    )
    return page.encode("utf-8", "replace")


def _html(text: str) -> str:
    return escape(clean_text(text))


def _head(origin: About) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_html(origin.title)}</title><style>{PAGE_STYLE}{STYLE}</style></head>"
    )


def _begins(path: PacketPath) -> bool:
    return path.role is Role.PROBE and path.leg == 1


def _warnings(result: TraceResult) -> Iterator[str]:
    told = remarks(result)
    if told:
        items = "".join(f"<li>{_html(each)}</li>" for each in told)
        yield f'<aside><h2>To be kept in mind</h2><ul class="open">{items}</ul></aside>'


def _contents(paths: Iterable[PacketPath]) -> Iterator[str]:
    """Yield what happened in short, where there is more than one packet."""
    rows = [
        f'<li><a href="#packet-{number}">{_html(_title(path))}</a>'
        f' <span class="{_mark_class(path)}">{_html(f"{mark(path)} {path.fate}")}</span></li>'
        for number, path in enumerate(paths, 1)
    ]
    if len(rows) > 1:
        yield f"<nav><h2>Packets</h2><ul>{''.join(rows)}</ul></nav>"


def _mark_class(path: PacketPath) -> str:
    return MARK_CLASSES[mark(path)]


def _title(path: PacketPath) -> str:
    return f"#{path.id} {packet_words(path.packet)}"


def _section(number: int, path: PacketPath, client: str | None, hop: int | None) -> str:
    cause = f"{mark(path)} {fate_words(path)}"
    return "\n".join(
        [
            f'<section id="packet-{number}"><h2>{_html(_title(path))}</h2>',
            f"<p>{_html(', '.join(about(path)))}</p>",
            f'<p class="fate {_mark_class(path)}">{_html(cause)}</p>',
            f'<div class="picture wide">{svg_picture(path, hop)}</div>',
            f'<div class="picture narrow">{svg_picture(path, hop, NARROW)}</div>',
            *_why(path, client),
            *_hops(path),
            "</section>",
        ]
    )


def _why(path: PacketPath, client: str | None) -> Iterator[str]:
    reasons = [each for each in why(path, client) if each[0] != "remedy"]
    remedies = [text for label, text in why(path, client) if label == "remedy"]
    if reasons:
        items = "".join(f"<dt>{_html(label)}</dt><dd>{_html(text)}</dd>" for label, text in reasons)
        yield f"<h3>Why</h3><dl>{items}</dl>"
    if remedies:
        items = "".join(f"<li><code>{_html(text)}</code></li>" for text in remedies)
        yield f"<h3>What could be done</h3><ul>{items}</ul>"


def _hops(path: PacketPath) -> Iterator[str]:
    rows = path_rows(path)
    if not rows:
        yield "<p>No hop was reported.</p>"
        return
    body = "\n".join(_row(row, number) for number, row in enumerate(rows, 1))
    names = ("", "where", "rule, or what happened", "effect", "counter")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    yield (f"<h3>Hops</h3><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>")


def _row(row: Row, number: int) -> str:
    place = " ".join(" ".join(row.lead).split())
    depth = len(row.lead[-1]) - len(row.lead[-1].lstrip())
    effect = ", ".join(row.effect)
    looks = (
        ("n", str(number)),
        ("where", "\u00a0" * depth + place),
        (f"rule {_style_class(row.rule_style)}", row.rule),
        (f"effect {_style_class(row.effect_style)}", effect),
        ("counter", row.counter),
    )
    cells = (f'<td class="{name}">{_cell(text)}</td>' for name, text in looks)
    return f"<tr>{''.join(cells)}</tr>"


def _cell(text: str) -> str:
    return escape(text).replace("\u00a0", "&nbsp;")


def _style_class(style: Style) -> str:
    return {Style.BAD: "bad", Style.CHANGE: "changed", Style.FAINT: "faint"}.get(style, "plain")


def _named(paths: Iterable[PacketPath], left_out: int) -> Iterator[str]:
    items = [f"<li>{_html(f'{_title(path)}: {path.fate}')}</li>" for path in paths]
    if items:
        yield f"<section><h2>Also seen</h2><ul>{''.join(items)}</ul></section>"
    if left_out:
        yield f"<p>{left_out:,} packets more are not shown here: write .jsonl for all of them.</p>"


def _totals(result: TraceResult) -> str:
    totals = result.totals
    told = f"{totals.complete:,} of {totals.packets:,} traced packets complete"
    lost = f"{totals.lost_events:,} reports lost, {totals.undecoded:,} not readable"
    clean = "everything was put back" if result.clean else "not everything could be put back"
    backends = ", ".join(result.backends) or "none"
    return _html(f"{told}; {lost}; trigger {result.trigger}; backends: {backends}; {clean}.")
