"""tests/data/*.dump: netlink messages as the kernel sent them, each with what it must decode to.

The text is made to be read and compared by eye: `rules TOOL` blocks hold what TOOL printed, a
`message N` block holds one message's bytes in hex, and below it one line of JSON an event.
scripts/record-trace writes such files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from ipttrace.decode.iptables_save import decode_iptables_save
from ipttrace.decode.nft_list import decode_nft_list, merge_nft
from ipttrace.event import Event
from ipttrace.netfilter import Backend, TableFamily
from ipttrace.ruleset import Ruleset

DATA = Path(__file__).parent / "data"

SAVES = {
    "iptables-legacy-save": (Backend.LEGACY, TableFamily.IP),
    "ip6tables-legacy-save": (Backend.LEGACY, TableFamily.IP6),
    "iptables-nft-save": (Backend.NFT, TableFamily.IP),
    "ip6tables-nft-save": (Backend.NFT, TableFamily.IP6),
}
BYTES_A_LINE = 32

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One netlink message and the records of the events in it."""

    data: bytes
    expected: list[Record]


@dataclass(slots=True)
class Recording:
    """One file: what was recorded where, the rules at that time, the messages in order."""

    title: str
    rules: dict[str, str] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)

    @property
    def ruleset(self) -> Ruleset:
        """The rules, read as the program reads them."""
        legacy, saved = Ruleset(), Ruleset()
        for tool, (backend, family) in SAVES.items():
            part = decode_iptables_save(self.rules.get(tool, ""), backend, family)
            legacy |= part if backend is Backend.LEGACY else Ruleset()
            saved |= part if backend is Backend.NFT else Ruleset()
        return legacy | merge_nft(saved, decode_nft_list(self.rules.get("nft", "")))


def event_record(event: Event) -> Record:
    """Return `event` as JSON has it; fields that say nothing are left out."""
    return {"event": type(event).__name__, **_plain(event)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        shown = (item for item in fields(value) if item.compare)
        pairs = ((item.name, getattr(value, item.name), item.default) for item in shown)
        return {name: _plain(part) for name, part, default in pairs if part != default}
    if isinstance(value, bytes):
        return value.hex()
    return list(value) if isinstance(value, tuple) else value


def names() -> list[str]:
    """Return the names of all recordings."""
    return sorted(path.stem for path in DATA.glob("*.dump"))


def read_recording(name: str) -> Recording:
    """Return the recording tests/data/NAME.dump."""
    return parse_recording((DATA / f"{name}.dump").read_text())


def parse_recording(text: str) -> Recording:
    """Return the recording that `text` holds."""
    recording = Recording("")
    for head, body in _blocks(text.split("\n")):
        if head.startswith("#"):
            recording.title += head + "\n"
        elif head.startswith("rules "):
            recording.rules[head[6:]] = "".join(line[2:] + "\n" for line in body)
        else:
            hexadecimal = "".join(line for line in body if "{" not in line)
            records = [json.loads(line) for line in body if "{" in line]
            recording.messages.append(Message(bytes.fromhex(hexadecimal), records))
    return recording


def _blocks(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    head, body = "", []
    for line in [*lines, ""]:
        if line.startswith(("  ", "{")):
            body.append(line)
            continue
        if head:
            yield head, body
        head, body = line, []


def format_recording(recording: Recording) -> str:
    """Return the text of `recording`."""
    parts = [recording.title]
    for tool, text in recording.rules.items():
        parts.append(f"rules {tool}\n" + "".join(f"  {line}\n" for line in text.splitlines()))
    for index, message in enumerate(recording.messages, 1):
        rows = range(0, len(message.data), BYTES_A_LINE)
        lines = [f"  {message.data[at : at + BYTES_A_LINE].hex()}\n" for at in rows]
        lines += [json.dumps(record) + "\n" for record in message.expected]
        parts.append(f"message {index}\n" + "".join(lines))
    return "\n".join(parts)
