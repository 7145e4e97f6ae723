"""Tries the rules and settings of a host in a namespace of their own, before a twin is built."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from errno import ENOENT
from pathlib import Path

from ipttrace.errors import UsageError
from ipttrace.lab.loadable import loadable
from ipttrace.lab.missing import Missing
from ipttrace.lab.nft_tables import NftTable, devices, loadable_nft
from ipttrace.lab.save_file import SaveFile
from ipttrace.lab.sysctls import interface_of, path_of
from ipttrace.lab.twin_source import TwinSource
from ipttrace.netfilter import Backend, TableFamily
from ipttrace.system import commands
from ipttrace.system.ipsets import try_ipsets
from ipttrace.system.namespaces import Namespace
from ipttrace.system.trial import nft_loader, restorer

AS_IS = "as-is"
SEARCH_TIME = 30.0
"""Seconds for finding what of a table is refused."""


@dataclass(slots=True)
class TriedRules:
    """Text for each field of a namespace of a lab."""

    fields: dict[str, str] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def tried_rules(source: TwinSource, backend: str, namespace: Namespace) -> TriedRules:
    """Return the rules that are taken here, each in its backend, and those that are not.

    Raises UsageError if rules of both backends would meet in one, NotSupportedError where the
    programs are missing.
    """
    rules = TriedRules()
    if source.sets.sets:
        sets = namespace.run(lambda: try_ipsets(source.sets))
        rules.fields["ipsets"] = sets.text()
        rules.missing += sets.missing
    for known, file in _placed(source.files, backend):
        where = _available(known, rules) if backend == AS_IS else known
        if not any(table.rules or table.chains for table in file.tables):
            rules.missing += file.missing
            continue
        deadline = time.monotonic() + SEARCH_TIME
        found = loadable(
            file,
            restorer(namespace, where, file.family),
            lambda: time.monotonic() > deadline,  # noqa: B023
        )
        program = "iptables" if file.family is TableFamily.IP else "ip6tables"
        name = f"{program}_{where}"
        rules.fields[name] = rules.fields.get(name, "") + found.text
        rules.missing += found.missing
        rules.notes += found.notes
        if not found.text and where is Backend.LEGACY:
            rules.notes.append(f"no table of {file.source} was taken: --backend nft may take them")
    _try_tables(rules, source.tables, namespace)
    return rules


def _placed(
    files: Sequence[tuple[Backend | None, SaveFile]], backend: str
) -> list[tuple[Backend, SaveFile]]:
    """Return the backend of each file; UsageError if two would meet in one table."""
    if backend == AS_IS:
        return [(known or _default_backend(), file) for known, file in files]
    if is_mixed(files):
        raise UsageError(
            f"cannot load all rules with {backend}: this host has some of both backends",
            "Leave --backend out: each goes where it was.",
        )
    return [(Backend(backend), file) for _, file in files if _says_something(file)]


def is_mixed(files: Sequence[tuple[Backend | None, SaveFile]]) -> bool:
    """Tell whether a host has rules of one family in both backends."""
    full = [(known, file.family) for known, file in files if _says_something(file)]
    return any(
        len({known for known, of in full if of is family}) > 1
        for family in (TableFamily.IP, TableFamily.IP6)
    )


def _available(wanted: Backend, rules: TriedRules) -> Backend:
    """Return `wanted`, or the other backend where the programs of that one are missing here."""
    other = Backend.NFT if wanted is Backend.LEGACY else Backend.LEGACY
    if _has(wanted) or not _has(other):
        return wanted
    rules.notes.append(f"rules of iptables-{wanted} go to iptables-{other}: there is no other here")
    return other


def _has(backend: Backend) -> bool:
    return commands.find(f"iptables-{backend}-restore") is not None


def _says_something(file: SaveFile) -> bool:
    return any(
        table.rules or any(chain.body not in ("ACCEPT", "-") for chain in table.chains)
        for table in file.tables
    ) or bool(file.missing)


def _default_backend() -> Backend:
    """Return the backend of this machine's plain `iptables`."""
    if commands.find("iptables") is None:
        return Backend.NFT if _has(Backend.NFT) else Backend.LEGACY
    said = commands.run(["iptables", "-V"], what="cannot ask iptables for its version")
    return Backend.LEGACY if "legacy" in said else Backend.NFT


def _try_tables(rules: TriedRules, tables: list[NftTable], namespace: Namespace) -> None:
    if not tables:
        return
    if commands.find("nft") is None:
        rules.missing += [
            Missing(table.lines[0], "there is no program nft here", "nft", table.number)
            for table in tables
        ]
        return
    namespace.run(lambda: _add_devices({name for table in tables for name in devices(table)}))
    found = loadable_nft(tables, nft_loader(namespace))
    rules.fields["nftables"] = found.text
    rules.missing += found.missing


def _add_devices(names: Iterable[str]) -> None:
    """Make interfaces of these names: nft asks for them when a chain or flowtable is added."""
    from ipttrace.system.addresses import rtnetlink

    with rtnetlink() as ipr:
        for name in names:
            if name != "lo":
                ipr.link("add", ifname=name, kind="bridge")


# ---------------------------------------------------------------- settings


def settable(sysctls: dict[str, str | int]) -> tuple[dict[str, str | int], list[Missing]]:
    """Return the settings that can be set in the calling thread's namespace, and the others.

    Those of interfaces are tried on `lo`.
    """
    usable: dict[str, str | int] = {}
    missing: list[Missing] = []
    for name, value in sysctls.items():
        path = Path("/proc/sys", path_of(name))
        if interface_of(name) not in (None, "all", "default"):
            path = path.parent.parent / "lo" / path.name
        try:
            if not path.exists():
                raise FileNotFoundError(ENOENT, "this kernel has no such setting")
            path.write_text(str(value))
        except OSError as error:
            missing.append(Missing(f"{name} = {value}", str(error.strerror), "sysctl"))
        else:
            usable[name] = value
    return usable, missing
