"""Makes the lab that stands for a host: its rules are tried first, so that all of the lab comes up.

What the kernel here refuses is left out and named: a lab is built whole or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from errno import ENOENT
from pathlib import Path

import msgspec

from ipttrace.decode.text import clean_text
from ipttrace.errors import UsageError
from ipttrace.lab.host import Host
from ipttrace.lab.missing import Missing
from ipttrace.lab.nft_tables import NftTable, devices, loadable_nft
from ipttrace.lab.reading import read_bytes
from ipttrace.lab.restoring import loadable
from ipttrace.lab.rules import RULE_FIELDS, Rules
from ipttrace.lab.save_file import SaveFile
from ipttrace.lab.sysctls import interface_of, path_of
from ipttrace.lab.topology import End, Link, Topology
from ipttrace.lab.twin import TWIN, WIRE, WIRE_HOST, TwinParts, twin_parts
from ipttrace.lab.twin_source import TwinSource, read_twin_source
from ipttrace.netfilter import Backend, TableFamily
from ipttrace.system import commands
from ipttrace.system.namespaces import Namespace
from ipttrace.system.trial import nft_loader, restorer, trial_namespace

AS_IS = "as-is"
SEARCH_TIME = 30.0
"""Seconds for finding what of a table is refused."""
WHAT = "snapshot or save file"


@dataclass(slots=True)
class Twin:
    """The lab that stands for a host, and what of the host it lacks."""

    topology: Topology
    backend: str
    """For the builder."""
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]
    """What stands in for something else, and what was concluded."""


def tell(twin: Twin, note: Callable[[str], None]) -> None:
    """Say what was concluded, and line by line what the twin lacks."""
    for text in twin.notes:
        note(clean_text(text))
    if twin.missing:
        note(f"not in the twin ({len(twin.missing)}):")
    for missing in twin.missing:
        note(f"not reproduced: {missing}")


@dataclass(slots=True)
class _Rules:
    """Text for each field of a namespace of a lab."""

    fields: dict[str, str] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_twin(file: str, backend: str = AS_IS) -> Twin:
    """Return the twin of the host that `file` describes: namespaces `twin` and `wire`.

    `backend` is `legacy`, `nft` or `as-is`.  Raises UsageError for a file that is nothing of the
    kind, and NotSupportedError where the programs or the kernel are not there.
    """
    host, parts, missing, notes = _read(file, backend)
    topology = Topology({TWIN: host, WIRE: WIRE_HOST}, tuple(parts.links(TWIN, WIRE)))
    return Twin(topology, _engine_backend(backend), tuple(missing), tuple(notes))


def resolve_twins(topology: Topology, backend: str) -> Twin:
    """Return a lab's topology with the state of each `twin:` in its namespace.

    `backend` is the run's; rules of both backends stay where they were.  Interfaces that a link of
    the lab ends in stay as the lab has them, but get the twin's addresses if they have none; the
    others end in a namespace `<name>-wire`.
    """
    namespaces = dict(topology.namespaces)
    links = list(topology.links)
    missing: list[Missing] = []
    notes: list[str] = []
    for name, host in topology.namespaces.items():
        if host.twin is None:
            continue
        file = str(topology.source.folder / host.twin)
        state, parts, lacking, said = _read(file, backend, strictly=False)
        missing += lacking
        notes += said
        links = [_dressed(link, name, parts) for link in links]
        taken = {end.interface for link in topology.links for end in link if end.namespace == name}
        wire = _free(f"{name[:15]}-wire", namespaces)
        own = parts.links(name, wire, taken)
        namespaces[name] = _merged(state, host)
        if own:
            namespaces[wire] = WIRE_HOST
            links += own
    whole = Topology(namespaces, tuple(links), topology.source)
    return Twin(whole, backend, tuple(missing), tuple(notes))


def _free(name: str, taken: Collection[str]) -> str:
    """Return a name like `name` that no namespace has."""
    numbered = (f"{name[:17]}{number}" for number in range(100))
    return next(each for each in (name, *numbered) if each not in taken)


def _engine_backend(backend: str) -> str:
    """Rules of a twin name their backend; only a change in a lab would ask for it."""
    return "nft" if backend == AS_IS else backend


def _read(
    file: str, backend: str, *, strictly: bool = True
) -> tuple[Host, TwinParts, list[Missing], list[str]]:
    content = read_bytes(file, what=WHAT, hint="Give a snapshot, or a file of iptables-save.")
    source = read_twin_source(content.decode(errors="surrogateescape"), file)
    parts = twin_parts(source.snapshot)
    if not strictly and (backend not in tuple(Backend) or _mixed(source.files)):
        backend = AS_IS
    with trial_namespace() as namespace:
        rules = _tried_rules(source, backend, namespace)
        sysctls, unset = namespace.run(lambda: _settable(parts.host.sysctls))
    try:
        host = msgspec.structs.replace(parts.host, sysctls=sysctls, **rules.fields)
    except ValueError as error:
        raise UsageError(f"cannot make a twin of {clean_text(file)}: {error}") from error
    missing = [*source.missing, *parts.missing, *rules.missing, *unset]
    return host, parts, missing, [*source.notes, *parts.notes, *rules.notes]


# ---------------------------------------------------------------- rules


def _tried_rules(source: TwinSource, backend: str, namespace: Namespace) -> _Rules:
    rules = _Rules()
    chosen = _placed(source.files, backend)
    for where, file in chosen:
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
    _try_tables(rules, source.tables, namespace)
    return rules


def _placed(
    files: Sequence[tuple[Backend | None, SaveFile]], backend: str
) -> list[tuple[Backend, SaveFile]]:
    """Return the backend of each file; UsageError if two would meet in one table."""
    if backend == AS_IS:
        return [(known or _default_backend(), file) for known, file in files]
    if _mixed(files):
        raise UsageError(
            f"cannot load all rules with {backend}: this host has some of both backends",
            "Leave --backend out: each goes where it was.",
        )
    return [(Backend(backend), file) for _, file in files if _says_something(file)]


def _mixed(files: Sequence[tuple[Backend | None, SaveFile]]) -> bool:
    """Tell whether a host has rules of one family in both backends."""
    full = [(known, file.family) for known, file in files if _says_something(file)]
    return any(
        len({known for known, of in full if of is family}) > 1
        for family in (TableFamily.IP, TableFamily.IP6)
    )


def _says_something(file: SaveFile) -> bool:
    return any(
        table.rules or any(chain.body not in ("ACCEPT", "-") for chain in table.chains)
        for table in file.tables
    ) or bool(file.missing)


def _default_backend() -> Backend:
    """Return the backend of this machine's plain `iptables`."""
    if commands.find("iptables-nft-restore") is None:
        return Backend.LEGACY
    said = commands.run(["iptables", "-V"], what="cannot ask iptables for its version")
    return Backend.LEGACY if "legacy" in said else Backend.NFT


def _try_tables(rules: _Rules, tables: list[NftTable], namespace: Namespace) -> None:
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


def _settable(sysctls: dict[str, str | int]) -> tuple[dict[str, str | int], list[Missing]]:
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


# ---------------------------------------------------------------- in a lab


def _dressed(link: Link, name: str, parts: TwinParts) -> Link:
    """Give a lab's own end the twin's addresses, if it has none."""
    ends = {end.interface: end for end in parts.ends}

    def dressed(end: End) -> End:
        own = ends.get(end.interface)
        if end.namespace != name or own is None or end.addresses:
            return end
        return msgspec.structs.replace(
            end, addresses=own.addresses, mtu=end.mtu or own.mtu, mac=end.mac or own.mac
        )

    return (dressed(link[0]), dressed(link[1]))


def _merged(state: Host, lab: Host) -> Host:
    """Return the twin's state with what the lab file adds."""
    rules = {name: _both(getattr(state, name), getattr(lab, name), name) for name in RULE_FIELDS}
    return msgspec.structs.replace(
        state,
        routes=(*state.routes, *lab.routes),
        policy=(*state.policy, *lab.policy),
        neighbours=(*state.neighbours, *lab.neighbours),
        bridges={**state.bridges, **lab.bridges},
        sysctls={**state.sysctls, **lab.sysctls},
        services=(*state.services, *lab.services),
        nftables=f"{state.nftables}{lab.nftables}",
        rules_file=lab.rules_file,
        **rules,
    )


def _both(twin: Rules, lab: Rules, name: str) -> Rules:
    if twin and lab:
        field_name = name.replace("_", "-")
        raise UsageError(
            f"cannot add `{field_name}` to a twin: it has rules of its own there",
            "Write them as `iptables` or `ip6tables`, or as a `change` of a probe.",
        )
    return twin or lab
