"""What is to be asked about one packet when it has come to its end."""

from __future__ import annotations

from dataclasses import dataclass

from ipttrace.packet import Flow, PacketSummary


@dataclass(frozen=True, slots=True)
class Question:
    """One packet of one namespace, as the tables are to be asked for it."""

    first: PacketSummary
    """As it was when first seen."""
    routed: PacketSummary
    """As it came to be routed: after nat's PREROUTING, or OUTPUT for a packet made here."""
    last: PacketSummary
    """As it was at its end."""
    flows: tuple[Flow, ...] = ()
    """Every flow that it has had."""
    in_interface: str | None = None
    """None for a packet that was made here."""
    out_interface: str | None = None
    mark: int = 0
    """When it came to be routed."""
    dsfield: int | None = 0
    """When it came to be routed; None where that is not known."""
    refused: bool = False
    """Whether the answer was a refusal: then other namespaces are looked at as well."""
    seen: bool = True
    """Whether any chain reported it."""
