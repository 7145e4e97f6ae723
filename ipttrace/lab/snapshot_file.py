"""Snapshots as files: JSON of our own, or the text that a line of shell wrote on a strange box.

    { for c in 'uname -a' ...; do echo "### $c"; $c; done; echo '### end'; } >host.txt 2>/dev/null

Both may be cut off in the middle: what is whole in them is read, and the rest is named.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import msgspec

from ipttrace.decode.text import clean_text
from ipttrace.errors import UsageError
from ipttrace.lab import host_plain, host_words
from ipttrace.lab.host_state import FORMAT, PolicyState, RouteState, SavedText, Snapshot

T = TypeVar("T")

RULE_COMMANDS = {
    "iptables-legacy-save -c": "iptables-legacy",
    "ip6tables-legacy-save -c": "ip6tables-legacy",
    "iptables-nft-save -c": "iptables-nft",
    "ip6tables-nft-save -c": "ip6tables-nft",
    "iptables-save -c": "iptables",
    "ip6tables-save -c": "ip6tables",
    "nft list ruleset": "nft",
    "ipset save": "ipset",
}
"""The names that they have in a snapshot; `iptables` alone is of either backend."""

COMMANDS = (
    "uname -a",
    *RULE_COMMANDS,
    "ip -d -j addr",
    "ip -4 -j route show table all",
    "ip -6 -j route show table all",
    "ip -4 -j rule",
    "ip -6 -j rule",
    "ip -d addr",
    "ip -4 route show table all",
    "ip -6 route show table all",
    "ip -4 rule",
    "ip -6 rule",
    "sysctl -a",
    "ss -lntup",
    "netstat -lntup",
)
END = "end"
ATTEMPTS = 8
"""Places at which a file that is cut off is tried to be closed: a value has few levels."""
MARK = "### "
MARKUP = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\],]', re.DOTALL)
SECTION = re.compile(r"### (\S.*?)\s*\Z")


def one_liner() -> str:
    """Return the line of shell that takes a snapshot with standard tools."""
    words = " ".join(f"'{command}'" for command in COMMANDS)
    loop = f'for c in {words}; do echo "{MARK}$c"; $c; done; echo "{MARK}{END}"'
    return f"{{ {loop}; }} >host.txt 2>/dev/null"


# -- the text of the line of shell


def is_sections(text: str) -> bool:
    """Tell whether a text is what the line of shell writes."""
    return any(SECTION.match(line) for line in text[:4096].split("\n"))


def read_sections(text: str) -> dict[str, str]:
    """Return what each command wrote, by command; the last one of a text without `end` is cut."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        match = SECTION.match(line)
        if match:
            current = found.setdefault(match[1], [])
        else:
            current.append(line)
    return {command: "\n".join(lines) for command, lines in found.items()}


def snapshot_of_sections(sections: Mapping[str, str]) -> Snapshot:
    """Return the snapshot in what the commands wrote; what cannot be read is named in `unread`."""
    unread = [] if END in sections else ["the text is cut off: it does not come to its end"]

    def read(
        command: str,
        reader: Callable[[str], tuple[T, ...]],
        in_words: Callable[[str], tuple[T, ...]],
    ) -> tuple[T, ...]:
        """Read JSON, or where `ip` knows none, its words."""
        plain = command.replace(" -j", "")
        if not sections.get(command, "").strip():
            command, reader = plain, in_words
        try:
            return tuple(_checked(each) for each in reader(sections.get(command, "")))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            unread.append(f"{command}: {error}")
            return ()

    routes: list[RouteState] = []
    policy: list[PolicyState] = []
    for option, family in (("-4", "ipv4"), ("-6", "ipv6")):
        routes += read(
            f"ip {option} -j route show table all",
            partial(host_words.read_routes, family=family),
            partial(host_plain.plain_routes, family=family),
        )
        policy += read(
            f"ip {option} -j rule",
            partial(host_words.read_policy, family=family),
            partial(host_plain.plain_policy, family=family),
        )
    return Snapshot(
        kernel=sections.get("uname -a", "").strip(),
        links=read("ip -d -j addr", host_words.read_links, host_plain.plain_links),
        routes=tuple(routes),
        policy=tuple(policy),
        sysctls=host_words.read_sysctls(sections.get("sysctl -a", "")),
        listeners=host_words.read_listeners(sections.get("ss -lntup", ""))
        or host_plain.plain_listeners(sections.get("netstat -lntup", "")),
        rules=_saved(sections),
        unread=tuple(unread),
    )


def _checked(value: T) -> T:
    """Return a value whose fields are of their types, or raise ValueError."""
    try:
        return msgspec.convert(msgspec.to_builtins(value), type(value))
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def _saved(sections: Mapping[str, str]) -> tuple[SavedText, ...]:
    """Return the rules; `iptables-save` says again what one of the two backends' said."""
    texts = {
        name: sections[command]
        for command, name in RULE_COMMANDS.items()
        if sections.get(command, "").strip()
    }
    for program in ("iptables", "ip6tables"):
        if any(f"{program}-{backend}" in texts for backend in ("legacy", "nft")):
            texts.pop(program, None)
    return tuple(SavedText(name, tuple(lines_of(text))) for name, text in texts.items())


def lines_of(text: str) -> list[str]:
    """Return the lines of a text; its end makes none."""
    return text.removesuffix("\n").split("\n")


# -- our own JSON


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the file of a snapshot: JSON with one value a line, so that two can be compared."""
    return msgspec.json.format(msgspec.json.encode(snapshot), indent=1) + b"\n"


def is_json(text: str) -> bool:
    """Tell whether a text is a snapshot of ours, also one that is cut off."""
    return text.lstrip("\ufeff \t\r\n").startswith("{")


def decode_snapshot(text: str, file: str) -> Snapshot:
    """Return the snapshot in a file; raises UsageError.

    Of a file that is cut off, all is read that is whole.
    """
    whole = text.lstrip("\ufeff").encode(errors="surrogateescape").decode(errors="replace")
    cut: tuple[str, ...] = ()
    try:
        snapshot = msgspec.json.decode(whole, type=Snapshot)
    except msgspec.ValidationError as error:
        raise _unusable(file, str(error)) from error
    except msgspec.DecodeError as error:
        found = _whole_part(whole)
        if found is None:
            raise _unusable(file, f"not JSON: {error}") from error
        snapshot = found
        cut = (f"the snapshot is cut off or damaged ({error}): what is whole before is read",)
    if snapshot.ipttrace_snapshot > FORMAT:
        raise _unusable(file, f"it has format {snapshot.ipttrace_snapshot}, this reads {FORMAT}")
    if not (snapshot.links or snapshot.rules):
        raise _unusable(file, "it holds neither interfaces nor rules")
    return msgspec.structs.replace(snapshot, unread=(*cut, *snapshot.unread))


def _unusable(file: str, reason: str) -> UsageError:
    return UsageError(
        clean_text(f"cannot use snapshot {file}: {reason}"),
        "Take it again with: ipttrace lab snapshot -o FILE",
    )


def _whole_part(text: str) -> Snapshot | None:
    """Return what a file that is cut off still tells, None if nothing."""
    for mended in mend(text):
        try:
            return msgspec.json.decode(mended, type=Snapshot)
        except (msgspec.ValidationError, msgspec.DecodeError):
            continue
    return None


def mend(text: str) -> Iterator[str]:
    """Yield JSON that is cut off as far as its values are whole, with all that is open closed.

    The longest comes first; the next ones lack what at its end may be begun only.
    """
    ends: deque[tuple[int, str]] = deque(maxlen=ATTEMPTS)
    open_ends: list[str] = []
    for match in MARKUP.finditer(text):
        mark = match[0]
        if mark[0] == '"':
            continue
        if mark in "{[":
            open_ends.append("}" if mark == "{" else "]")
        elif mark in "}]" and (not open_ends or open_ends.pop() != mark):
            break
        good = match.start() if mark == "," else match.end()
        ends.append((good, "".join(reversed(open_ends))))
    for good, closers in reversed(ends):
        yield text[:good] + closers
