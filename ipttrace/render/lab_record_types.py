"""The JSON records about labs, as types; field names are the file format's."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class ClaimFields(Struct, frozen=True):
    """What a recipe claims, and whether the kernel agrees."""

    claim: str
    verdict: Literal["true", "half", "false"]
    why: str
    probes: tuple[str, ...]


class LabRecord(Struct, frozen=True):
    """One lab, as `ipttrace lab list` and `lab show` know it."""

    schema: Literal["ipttrace/1"]
    record: Literal["lab"]
    name: str
    title: str
    group: str
    about: str
    backends: tuple[str, ...]
    namespaces: tuple[str, ...]
    claims: tuple[ClaimFields, ...]
    probes: tuple[str, ...]
    up: bool
    """Whether a lab of this name stays up now."""


class InterfaceFields(Struct, frozen=True):
    """An interface of a lab that is up."""

    name: str
    addresses: tuple[str, ...]


class NamespaceFields(Struct, frozen=True):
    """A namespace of a lab that is up."""

    name: str
    """The lab's own name."""
    netns: str
    """The name of `ip netns`."""
    interfaces: tuple[InterfaceFields, ...]


class LabUpRecord(Struct, frozen=True):
    """A lab that was brought up."""

    schema: Literal["ipttrace/1"]
    record: Literal["lab-up"]
    name: str
    backend: str
    namespaces: tuple[NamespaceFields, ...]


class LabProbeFields(Struct, frozen=True):
    """What came of one probe, or of a command that must be refused."""

    name: str
    as_expected: bool
    differences: tuple[str, ...]


class LabRunRecord(Struct, frozen=True):
    """What came of one lab on one backend; the records of its probes come before it."""

    schema: Literal["ipttrace/1"]
    record: Literal["lab-run"]
    lab: str
    backend: str
    as_expected: bool
    error: str | None
    """Why it could not be run to its end."""
    refusals: tuple[LabProbeFields, ...]
    probes: tuple[LabProbeFields, ...]
    warnings: tuple[str, ...]
    seconds: float


LAB_RECORDS: tuple[type[Struct], ...] = (LabRecord, LabUpRecord, LabRunRecord)
