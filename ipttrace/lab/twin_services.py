"""The listeners of a twin, and what it lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TypeVar

from ipttrace.lab.host import Service
from ipttrace.lab.host_state import ListenerState, Snapshot
from ipttrace.lab.missing import Missing
from ipttrace.lab.parts import BadFieldError

T = TypeVar("T")

MOST_LISTENERS = 500
"""The keeper of a lab holds them, and a process may open 1,024 files by default."""


@dataclass(slots=True)
class Lacks:
    """What of a snapshot its twin lacks, and what is said of it."""

    snapshot: Snapshot
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lacks(self, text: str, reason: str, source: str) -> None:
        """Note one thing."""
        self.missing.append(Missing(text, reason, source))

    def attempt(self, make: Callable[[], T], text: str, source: str) -> T | None:
        """Return what `make` makes, or note why it cannot."""
        try:
            return make()
        except (BadFieldError, ValueError) as error:
            self.lacks(text, str(error), source)
            return None


def services_of(builder: Lacks, local: set[str], names: set[str]) -> Iterator[Service]:
    """Yield the listeners that can be; `local` are the twin's addresses, `names` its interfaces."""
    seen: set[tuple[object, ...]] = set()
    for listener in builder.snapshot.listeners:
        text = _words(listener)
        if listener.interface is not None and listener.interface not in {*names, "lo"}:
            builder.lacks(text, f"there is no interface {listener.interface}", "ss")
            continue
        for address in _heard(listener.address):
            key = (listener.protocol, _same(address), listener.port, listener.interface)
            if key in seen:
                continue
            seen.add(key)
            if len(seen) > MOST_LISTENERS:
                builder.lacks(text, f"more than {MOST_LISTENERS} listeners", "ss")
            elif problem := _cannot_listen(address, local):
                builder.lacks(text, problem, "ss")
            elif service := _service(builder, listener, address, text):
                yield service


def _service(builder: Lacks, listener: ListenerState, address: str, text: str) -> Service | None:
    if listener.protocol not in ("tcp", "udp"):
        builder.lacks(text, "neither TCP nor UDP", "ss")
        return None
    protocol = "tcp" if listener.protocol == "tcp" else "udp"
    interface = listener.interface
    return builder.attempt(
        lambda: Service(
            listener.port,
            protocol,  # type: ignore[arg-type]
            address,
            interface=interface,
        ),
        text,
        "ss",
    )


def _words(listener: ListenerState) -> str:
    process = f" ({listener.process})" if listener.process else ""
    where = f"%{listener.interface}" if listener.interface else ""
    return f"{listener.protocol} {listener.address}{where} port {listener.port}{process}"


def _heard(address: str) -> tuple[str, ...]:
    """Return the addresses of the sockets that hear what one on `address` hears."""
    if address == "*":
        return ("0.0.0.0", "::")  # noqa: S104
    return (address.removeprefix("::ffff:"),) if "." in address else (address,)


def _same(text: str) -> object:
    """Return an address so that two ways to write it are one."""
    try:
        return ip_address(text)
    except ValueError:
        return text


def _cannot_listen(text: str, local: set[str]) -> str | None:
    try:
        address = ip_address(text)
    except ValueError as error:
        return str(error)
    if address.is_link_local and address.version == 6:
        return "a link-local address"
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        return "a multicast address" if address.is_multicast else None
    return None if str(address) in local else f"the twin has no address {text}"
