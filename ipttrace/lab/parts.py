"""The base of all parts of a lab file, and the checks that several parts share."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from enum import StrEnum
from ipaddress import ip_address, ip_interface, ip_network

import msgspec

from ipttrace.netfilter import Backend

FieldPath = tuple[str | int, ...]
"""The way to a field: keys of maps and places in lists, from the top."""

NAMESPACE_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}\Z")
INTERFACE_NAME = re.compile(r"[^\s/:\x00-\x20\x7f]{1,15}\Z")
"""dev_valid_name (net/core/dev.c)."""
INTERFACE_BYTES = 15
"""IFNAMSIZ is 16 with the final zero (uapi/linux/if.h)."""
MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}\Z")
SPECIAL = re.compile(r"['\"\\\x00-\x1f]")
"""Without these a line is split at its spaces: shlex takes a second for 50,000."""
SMALLEST_MTU, LARGEST_MTU = 68, 65535
"""ETH_MIN_MTU, ETH_MAX_MTU (uapi/linux/if_ether.h)."""


class LabBackend(StrEnum):
    """Where the rules of one run go that name no backend."""

    LEGACY = "legacy"
    NFT = "nft"
    BOTH = "both"
    """Into ip_tables and into nf_tables."""

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The rule engines that are loaded."""
        return tuple(Backend) if self is LabBackend.BOTH else (Backend(self.value),)


class BadFieldError(ValueError):
    """A field of a part cannot be used; msgspec adds the way to the part."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.path: FieldPath = path
        """From the part to the field."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """The base of all parts: a misspelt field is an error."""


def check(value: str, read: Callable[[str], object], *path: str | int) -> None:
    """Raise BadFieldError at `path` if `read` refuses the value."""
    try:
        read(value)
    except ValueError as error:
        raise BadFieldError(str(error), *path) from error


def check_address(text: str, *path: str | int) -> None:
    """Refuse what is no bare address."""
    check(text, ip_address, *path)
    if "%" in text:
        raise BadFieldError(f"address {text!r} has a zone: name the interface", *path)


def check_network(text: str, *path: str | int) -> None:
    """Refuse what is no network; one with bits of a host set, too."""
    check(text, ip_network, *path)


def check_interface_address(text: str, *path: str | int) -> None:
    """Refuse what is no address with the length of its prefix."""
    if "/" not in text:
        raise BadFieldError(f"address {text!r} lacks the length of its prefix", *path)
    check(text, ip_interface, *path)


def check_interface_name(name: str, *path: str | int) -> None:
    """Refuse what the kernel would not take as a device's name."""
    length = len(name.encode(errors="surrogateescape"))
    if length > INTERFACE_BYTES:
        raise BadFieldError(
            f"{name!r} cannot name an interface: it has {length} bytes, and the kernel "
            f"takes {INTERFACE_BYTES}",
            *path,
        )
    if not INTERFACE_NAME.match(name) or not name.isprintable() or name in (".", ".."):
        raise BadFieldError(f"{name!r} cannot name an interface", *path)


def check_namespace_name(name: str, *path: str | int) -> None:
    """Refuse what is no name of a namespace of a lab."""
    if not NAMESPACE_NAME.match(name):
        raise BadFieldError(
            f"{name!r} cannot name a namespace: use up to 20 lower-case letters, digits and '-'",
            *path,
        )


def check_mac(text: str, *path: str | int) -> None:
    """Refuse what is no hardware address of one station."""
    if not MAC.match(text):
        raise BadFieldError(f"{text!r} is no hardware address like 02:00:00:00:00:09", *path)
    if int(text[:2], 16) & 1:
        raise BadFieldError(f"{text!r} is the hardware address of a group", *path)


def check_range(value: int, least: int, most: int, *path: str | int) -> None:
    """Refuse a number outside `least` to `most`."""
    if not least <= value <= most:
        raise BadFieldError(f"{path[-1]} {value} is not a number from {least} to {most}", *path)


def check_unique(names: Iterable[str], what: str, *path: str | int) -> None:
    """Refuse two of a name; the path gets the place of the second."""
    seen: set[str] = set()
    for place, name in enumerate(names):
        if name in seen:
            raise BadFieldError(f"there are two {what} {name!r}", *path, place)
        seen.add(name)


def check_printable(text: str, *path: str | int) -> None:
    """Refuse control characters and what else a terminal acts on, line ends too."""
    if not text.isprintable():
        raise BadFieldError(f"{text!r} has control characters", *path)


def words_of(line: str) -> tuple[str, ...]:
    """Return the arguments of one line of rules; quotes work as in a shell, nothing else does."""
    if line.isascii() and not SPECIAL.search(line):
        return tuple(line.split())
    return tuple(shlex.split(line))
