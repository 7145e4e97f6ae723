"""The inject form as values: what its fields hold, and the probe that they describe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ipttrace.decode.text import clean_text
from ipttrace.errors import UsageError
from ipttrace.inventory import Place
from ipttrace.probe import RULES, ProbeSpec, parse_endpoint, parse_flags, parse_port
from ipttrace.request import Trigger

HERE_CLIENT, INJECTED, OTHER_CLIENT = "client here", "inject", "client in"
WAYS = (HERE_CLIENT, INJECTED, OTHER_CLIENT)
"""How a probe is made: by a real client, on an interface, by a real client elsewhere."""

CONTAINED, LET_OUT = "contained", "let out"
TRANSPORTS = ("tcp", "udp")
"""They have ports."""


@dataclass(frozen=True, slots=True)
class FormValues:
    """What stands in the fields, as text; also one line of the history."""

    protocol: str = "tcp"
    to: str = ""
    port: str = ""
    source: str = ""
    way: str = HERE_CLIENT
    interface: str = ""
    client: str = ""
    netns: str = ""
    flags: str = ""
    size: str = ""
    count: str = ""
    trigger: str = "auto"
    containment: str = CONTAINED

    @property
    def title(self) -> str:
        """The probe in a few words."""
        target = f"[{self.to}]" if ":" in self.to and self.port else self.to
        words = [self.protocol, target + (f":{self.port}" if self.port else "")]
        if self.way == INJECTED and self.interface:
            words.append(f"in {self.interface}")
        elif self.way == OTHER_CLIENT and self.client:
            words.append(f"from {self.client}")
        if self.netns:
            words.append(f"@ {self.netns}")
        words += [f"x{self.count}"] if self.count not in ("", "1") else []
        return clean_text(" ".join(words))


FIELDS = tuple(each.name for each in fields(FormValues))


@dataclass(frozen=True, slots=True)
class Checked:
    """A probe, or what is wrong with which fields."""

    spec: ProbeSpec | None = None
    errors: Mapping[str, str] = field(default_factory=dict)


def shown_fields(values: FormValues) -> tuple[str, ...]:
    """Return the fields that mean something for such a probe, in their order."""
    injected = values.way == INJECTED
    hidden = {
        "port": values.protocol not in TRANSPORTS,
        "interface": not injected,
        "client": values.way != OTHER_CLIENT,
        "flags": not injected or values.protocol != "tcp",
        "containment": not injected,
    }
    return tuple(name for name in FIELDS if not hidden.get(name))


def check(values: FormValues) -> Checked:
    """Return the probe that the fields describe, or an error for each field that is wrong."""
    unused = {name: "" for name in FIELDS if name not in shown_fields(values)}
    values = replace(values, **unused)
    fields_read = _Reader(values)
    read = fields_read.read
    src, sport = read("source", parse_endpoint, (None, None))
    interface, client = _way(values, fields_read.errors)
    spec = ProbeSpec(
        protocol=values.protocol,
        dst=read("to", _address, ""),
        dport=read("port", parse_port),
        src=src,
        sport=sport,
        in_interface=interface,
        from_netns=client,
        netns=tuple(values.netns.replace(",", " ").split()),
        tcp_flags=read("flags", parse_flags, ("SYN",)),
        size=read("size", _number("size")),
        count=read("count", _number("count"), 1),
        trigger=Trigger(values.trigger) if values.trigger != "auto" else None,
        let_out=values.containment == LET_OUT,
    )
    if not values.to.strip():
        fields_read.errors["to"] = "the destination is missing"
    return Checked(errors=fields_read.errors) if fields_read.errors else _validated(spec)


class _Reader:
    """Reads fields; what cannot be read becomes the field's error."""

    def __init__(self, values: FormValues) -> None:
        self._values = values
        self.errors: dict[str, str] = {}

    def read(self, name: str, reader: Callable[[str], Any], default: Any = None) -> Any:
        """Return what stands in a field; `default` where nothing does, or nothing readable."""
        text = str(getattr(self._values, name)).strip()
        try:
            return reader(text) if text else default
        except UsageError as error:
            self.errors[name] = str(error)
            return default


def _way(values: FormValues, errors: dict[str, str]) -> tuple[str | None, str | None]:
    """Return the interface to inject on, and the namespace of a real client."""
    if values.way == INJECTED:
        if not values.interface.strip():
            errors["interface"] = "the interface is missing on which the packet comes in"
        return values.interface.strip() or None, None
    if values.way == OTHER_CLIENT:
        if not values.client.strip():
            errors["client"] = "the namespace is missing that the client is in"
        return None, values.client.strip() or None
    return None, None


FIELD_OF_RULE = {
    "_protocol": "protocol",
    "_addresses": "to",
    "_source_family": "source",
    "_protocol_family": "to",
    "_ports": "port",
    "_port_range": "port",
    "_way_in": "interface",
    "_link_local": "to",
    "_flags": "flags",
    "_size": "size",
    "_count": "count",
    "_let_out": "containment",
}
"""Rule of `ipttrace.probe` to the field at which what it says is shown."""

IN_FORM_WORDS = (
    ("Name the interface with --in.", "Choose inject and name the interface."),
    ("Inject the packet with --in.", "Choose inject."),
    ("leave --in out", "choose client here"),
    ("Write A:P.", "Give a port."),
    ("Write [A]:P.", "Give a port."),
    ("--size ", "size "),
    ("--count ", "count "),
    ("--in ", "interface "),
)
"""What an error says of the command line, and how it is said in the form."""


def _validated(spec: ProbeSpec) -> Checked:
    for rule in RULES:
        try:
            rule(spec)
        except UsageError as error:
            text = str(error)
            for option, words in IN_FORM_WORDS:
                text = text.replace(option, words)
            return Checked(errors={FIELD_OF_RULE.get(rule.__name__, "to"): text})
    return Checked(spec)


def _address(text: str) -> str:
    address, port = parse_endpoint(text)
    if port is not None:
        raise UsageError(f"cannot read address {text!r}: the port has a field of its own")
    return address


def _number(what: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) <= 6):
            raise UsageError(f"cannot read {what} {text!r}: not a number from 1 to 999999")
        return int(text)

    return read


def where_from(values: FormValues) -> str:
    """Return in words where such a probe starts: in which namespace a packet is made."""
    names = values.netns.replace(",", " ").split()
    traced = f"namespace {names[0]}" if names else "this host (trace in is empty)"
    if values.way == INJECTED:
        return f"comes in on {values.interface.strip() or 'an interface'} of {traced}"
    if values.way == OTHER_CLIENT:
        return f"sent from namespace {values.client.strip() or '?'}, traced in {traced}"
    return f"sent from {traced}"


def without_gone(values: FormValues, places: Sequence[Place], looked_at: str) -> FormValues:
    """Return `values` of a probe in places that are there; else as if in `looked_at`."""
    names = values.netns.replace(",", " ").split()
    netns = values.netns if all(_is_there(name, places) for name in names) else looked_at
    client = values.client if _is_there(values.client, places) else ""
    return replace(values, netns=netns, client=client)


def _is_there(name: str, places: Sequence[Place]) -> bool:
    """A container goes by the start of its id, too; what cannot be told is taken as there."""
    if not name or name.isdecimal() or "/" in name:
        return True
    return any(name == place.alias or (place.name or "").startswith(name) for place in places)


def split_target(values: FormValues, text: str) -> FormValues:
    """Return `values` with address and port of a target typed as one: `1.2.3.4:80`."""
    try:
        address, port = parse_endpoint(text.strip())
    except UsageError:
        return replace(values, to=text)
    return replace(values, to=address, port=str(port) if port is not None else values.port)


def candidates(name: str, values: FormValues, places: Sequence[Place]) -> tuple[str, ...]:
    """Return what could stand in a field, of what exists, the likeliest first."""
    where = values.netns.replace(",", " ").split()
    traced = [place for place in places if _is_one_of(place, where)]
    match name:
        case "interface":
            found = _interfaces(traced or places)
        case "to" | "source":
            own = name == "to" or values.way != INJECTED
            found = [a for place in (traced or places if own else places) for a in place.addresses]
        case "netns" | "client":
            named = sorted(places, key=lambda place: not place.alias)
            found = [place.alias or place.name for place in named if place.name]
        case "flags":
            found = ["SYN", "SYN,ACK", "ACK", "RST", "FIN,ACK", "NONE"]
        case _:
            found = []
    return tuple(dict.fromkeys(each for each in found if each))


def _is_one_of(place: Place, names: Sequence[str]) -> bool:
    if not names:
        return place.name is None
    return bool({place.name, place.alias} & set(names))


def _interfaces(places: Iterable[Place]) -> list[str]:
    links = [link for place in places for link in place.interfaces if link.name != "lo"]
    return [link.name for link in sorted(links, key=lambda link: not link.up)]


def completed(text: str, found: Sequence[str]) -> str | None:
    """Return the first candidate that goes on from the last word of `text`, with what is before."""
    head, space, word = text.rpartition(" ")
    match = next((each for each in found if each.startswith(word) and each != word), None)
    return None if match is None or not word else f"{head}{space}{match}"
