"""The file that a twin is made from, whatever kind it is: a snapshot, the text of standard tools,
or a bare save file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ipttrace.decode.text import clean_text
from ipttrace.errors import UsageError
from ipttrace.lab.derive import derive
from ipttrace.lab.host_state import Snapshot
from ipttrace.lab.ipsets import IpSets, read_ipsets
from ipttrace.lab.missing import Missing
from ipttrace.lab.nft_tables import NftTable, native_tables, split_tables
from ipttrace.lab.save_file import SaveFile, looks_like_save_file, parse_save_file
from ipttrace.lab.snapshot_file import (
    decode_snapshot,
    is_json,
    is_sections,
    read_sections,
    snapshot_of_sections,
)
from ipttrace.netfilter import Backend, TableFamily

FAMILIES = {"iptables": TableFamily.IP, "ip6tables": TableFamily.IP6}


@dataclass(slots=True)
class TwinSource:
    """What a file says of a host."""

    snapshot: Snapshot
    files: list[tuple[Backend | None, SaveFile]] = field(default_factory=list)
    """Rules of iptables, each with its backend, None if it is not known."""
    sets: IpSets = field(default_factory=IpSets)
    tables: list[NftTable] = field(default_factory=list)
    """Native tables of nft."""
    native_first: bool = False
    """Whether they were there before those of iptables-nft."""
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    derived: bool = False
    """Whether interfaces and addresses were concluded from the rules."""


def read_twin_source(text: str, file: str) -> TwinSource:
    """Return what a file says; raises UsageError for one that is none of the three."""
    name = file.rpartition("/")[2]
    if is_json(text):
        return _of_snapshot(decode_snapshot(text, file))
    if is_sections(text):
        return _of_snapshot(snapshot_of_sections(read_sections(text)))
    if looks_like_save_file(text):
        parsed = parse_save_file(text, name)
        source = TwinSource(Snapshot(), [(parsed.backend, parsed)])
        return _with_host(source)
    raise UsageError(
        clean_text(
            f"cannot make a twin of {file}: it is neither a snapshot, nor the text of the line of "
            "shell, nor a file of iptables-save"
        ),
        "Take a snapshot with: ipttrace lab snapshot -o FILE",
    )


def _of_snapshot(snapshot: Snapshot) -> TwinSource:
    source = TwinSource(snapshot)
    for saved in snapshot.rules:
        program, _, backend = saved.program.partition("-")
        if program in FAMILIES:
            known = Backend(backend) if backend in tuple(Backend) else None
            parsed = parse_save_file(saved.text, saved.program, FAMILIES[program])
            source.files.append((known or parsed.backend, parsed))
        elif saved.program == "ipset":
            source.sets = read_ipsets(saved.text)
            source.missing += source.sets.missing
        elif saved.program != "nft":
            source.missing.append(Missing(saved.program, "rules of a program that is not known"))
    text = snapshot.saved("nft")
    others = _of_iptables_nft(source)
    source.tables = native_tables(text, others)
    _order(source, text, others)
    return source if snapshot.links else _with_host(source)


def _order(source: TwinSource, text: str, others: set[tuple[str, str]]) -> None:
    """Note which tables were made first: nft lists them in that order."""
    numbers = [table.number for table in source.tables]
    theirs = [each.number for each in split_tables(text) if (each.family, each.name) in others]
    if not numbers or not theirs:
        return
    source.native_first = min(numbers) < min(theirs)
    if min(numbers) < max(theirs) and min(theirs) < max(numbers):
        source.notes.append(
            "tables of nftables stood between those of iptables-nft: of chains at one hook and"
            " priority, another one may come first here"
        )


def _of_iptables_nft(source: TwinSource) -> set[tuple[str, str]]:
    return {
        (parsed.family.value, table.name)
        for backend, parsed in source.files
        if backend is Backend.NFT
        for table in parsed.tables
    }


def _with_host(source: TwinSource) -> TwinSource:
    """Add the host that fits the rules."""
    host, notes = derive([parsed for _, parsed in source.files])
    source.derived = True
    source.notes += notes
    kept = source.snapshot
    source.snapshot = Snapshot(
        host=kept.host,
        taken=kept.taken,
        kernel=kept.kernel,
        unread=kept.unread,
        links=host.links,
        routes=kept.routes or host.routes,
        policy=kept.policy,
        sysctls={**host.sysctls, **kept.sysctls},
        listeners=kept.listeners or host.listeners,
        rules=kept.rules,
    )
    return source
