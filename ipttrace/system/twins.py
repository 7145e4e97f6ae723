"""Makes the lab that stands for a host: its rules are tried first, so that all of the lab comes up.

What the kernel here refuses is left out and named: a lab is built whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import msgspec

from ipttrace.decode.text import clean_text
from ipttrace.errors import UsageError
from ipttrace.lab.host import Host
from ipttrace.lab.missing import Missing
from ipttrace.lab.reading import read_bytes
from ipttrace.lab.rules import RULE_FIELDS, Rules
from ipttrace.lab.topology import End, Link, Topology
from ipttrace.lab.twin import TWIN, WIRE, WIRE_HOST, TwinParts, twin_parts
from ipttrace.lab.twin_source import read_twin_source
from ipttrace.netfilter import Backend
from ipttrace.system.trial import trial_namespace
from ipttrace.system.twin_trial import AS_IS, is_mixed, settable, tried_rules

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
    if not strictly and (backend not in tuple(Backend) or is_mixed(source.files)):
        backend = AS_IS
    with trial_namespace() as namespace:
        rules = tried_rules(source, backend, namespace)
        sysctls, unset = namespace.run(lambda: settable(parts.host.sysctls))
    try:
        host = msgspec.structs.replace(
            parts.host, sysctls=sysctls, nftables_first=source.native_first, **rules.fields
        )
    except ValueError as error:
        raise UsageError(f"cannot make a twin of {clean_text(file)}: {error}") from error
    missing = [*source.missing, *parts.missing, *rules.missing, *unset]
    return host, parts, missing, [*source.notes, *parts.notes, *rules.notes]


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
        ipsets=f"{state.ipsets}{lab.ipsets}",
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
