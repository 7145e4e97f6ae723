"""Builds a lab: namespaces, links, services and rules, all of which go with it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ipttrace.decode.text import clean_text
from ipttrace.errors import UsageError
from ipttrace.lab.ipsets import read_ipsets
from ipttrace.lab.lab_probe import Change
from ipttrace.lab.parts import LabBackend
from ipttrace.lab.rules import RuleSource, file_sources
from ipttrace.lab.source import Source
from ipttrace.lab.topology import Topology
from ipttrace.system import commands, lab_records, user_namespace
from ipttrace.system.ipsets import build_ipsets
from ipttrace.system.lab_links import build_links, explaining, set_link
from ipttrace.system.lab_records import Record
from ipttrace.system.lab_rooms import Room, Rooms
from ipttrace.system.lab_routes import settle, write_settings
from ipttrace.system.lab_rules import LOCK_WAIT, RuleLoader, tidy
from ipttrace.system.namespaces import NAMED, Namespace
from ipttrace.system.netns_files import create_namespace
from ipttrace.system.processes import mark_of
from ipttrace.system.services import Keeper
from ipttrace.system.twin_trial import AS_IS
from ipttrace.system.twins import read_twin, resolve_twins, tell


class Lab:
    """Implements `lab.building.RunningLab`."""

    def __init__(
        self, topology: Topology, backend: LabBackend, record: Record, keeper: Keeper
    ) -> None:
        self.topology = topology
        self.backend = backend
        self.namespaces: Mapping[str, str] = record.namespaces
        self.keeper = keeper
        self._record = record
        self._is_up = True

    @property
    def name(self) -> str:
        """What the lab is called as long as it is up."""
        return self._record.name

    def record_keeper(self) -> None:
        """Write down which process keeps the lab."""
        self._record = lab_records.kept_by(self._record, mark_of(self.keeper.pid))

    def change(self, change: Change, *path: str | int) -> None:
        """Make something different in one namespace; raises KernelError.

        `path` is the change's place in the lab's file; without one it is in no file.
        """
        self._inside(change.namespace, partial(self._make, change, path))

    def refused(self, namespace: str, words: Sequence[str]) -> str | None:
        """Run a command of iptables or nft; return its complaint, None if it is accepted."""
        program = words[0]
        backend = self.backend.backends[0]
        rest = list(words[1:])
        if program != "nft":
            named = program.endswith(("-legacy", "-nft"))
            program = program if named else f"{program}-{backend}"
            rest = ["-w", LOCK_WAIT, *rest]
        finished = commands.start(
            [program, *rest],
            what=f"cannot run {program} in {namespace}",
            namespace=_namespace(self.namespaces[namespace]),
        ).finish()
        return None if finished.code == 0 else tidy(finished.complaint) or f"exit {finished.code}"

    def keep(self) -> None:
        """Let the lab stay up when this process ends."""
        if self._is_up:
            self.keeper.stay()
            self._record = lab_records.staying(self._record)
            self.keeper.let_go()
            self._is_up = False

    def down(self) -> Sequence[str]:
        """Take everything back; return warnings.  May be called more than once."""
        if not self._is_up:
            return []
        self._is_up = False
        warnings = self.keeper.close()
        lab_records.remove(self._record.name)
        return warnings

    def _inside(self, name: str, function: Any) -> None:
        with (
            explaining(f"change {name}"),
            Rooms({name: _namespace(self.namespaces[name])}) as rooms,
        ):
            rooms.everywhere(Room.enter)
            rooms.everywhere(function)

    def _make(self, change: Change, path: tuple[str | int, ...], room: Room) -> None:
        write_settings(change.sysctls, room)
        loader = RuleLoader(room.name, path, self.topology.source if path else Source())
        loader.load(change.rule_sources(self.backend), flush=True)
        if change.link is not None:
            set_link(room, change.link.interface, up=change.link.up)


class LabBuilder:
    """Implements `lab.building.TopologyBuilder`.

    A lab of a run is called by a random token; one that shall stay up by `name`.  Its namespaces
    are `<prefix>-<name>-<namespace>`.
    """

    def __init__(
        self,
        prefix: str = "ipt-lab",
        *,
        name: str | None = None,
        title: str = "",
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.prefix = prefix
        self._name = name
        self._title = title
        self._note = note

    def up(self, topology: Topology, backend: str) -> Lab:
        """Build the lab; on an error, Ctrl-C included, nothing stays behind.

        Labs whose owner was killed are removed before.  UsageError if a name is taken, KernelError
        for what the kernel or a program refuses.  What a twin in it lacks is noted.
        """
        topology = self._with_twins(topology, backend)
        lab_records.sweep()
        name = self._name or secrets.token_hex(4)
        names = {each: f"{self.prefix}-{name}-{each}" for each in topology.namespaces}
        record = Record(
            name=name,
            title=self._title or topology.source.file or name,
            backend=backend,
            namespaces=names,
            owner=lab_records.owner(),
            file=topology.source.file,
            made=time.time(),
            user_namespace=user_namespace.is_inside(),
        )
        with explaining("write down that a lab comes up"):
            lab_records.add(record)
        try:
            _refuse_taken(names)
            keeper = Keeper(list(names.values()), lab_records.folder() / f"{name}.json")
        except BaseException:
            lab_records.remove(name)
            raise
        lab = Lab(topology, LabBackend(backend), record, keeper)
        try:
            with explaining("build the lab"):
                lab.record_keeper()
                _build(lab)
        except BaseException:
            lab.down()
            raise
        return lab

    def _with_twins(self, topology: Topology, backend: str) -> Topology:
        if all(host.twin is None for host in topology.namespaces.values()):
            return topology
        twin = resolve_twins(topology, backend)
        tell(twin, self._note)
        return twin.topology


class TwinBuilder:
    """Implements `lab.checking.TwinBuilder`; `note` hears of what a twin lacks."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    def up(self, file: Path, backend: str) -> Lab:
        """Build the twin of a host; an empty backend leaves its rules where they were."""
        twin = read_twin(str(file), backend or AS_IS)
        tell(twin, self._note)
        return LabBuilder(title=f"twin of {clean_text(str(file))}").up(twin.topology, twin.backend)


def _refuse_taken(names: Mapping[str, str]) -> None:
    for real in names.values():
        if (NAMED / real).exists():
            raise UsageError(
                f"cannot make namespace {real}: there is one of that name", "Give another --name."
            )


def _namespace(real: str) -> Namespace:
    return Namespace(real, NAMED / real)


def _build(lab: Lab) -> None:
    for real in lab.namespaces.values():
        create_namespace(real)
    inside = {name: _namespace(real) for name, real in lab.namespaces.items()}
    topology = lab.topology
    with Rooms(inside) as rooms:
        rooms.everywhere(Room.enter)
        build_links(topology, rooms)
        rooms.everywhere(lambda room: settle(topology.namespaces[room.name], room))
        lab.keeper.open(list(_listeners(lab)))
        rooms.everywhere(partial(_load_rules, topology, lab.backend))


def _load_rules(topology: Topology, backend: LabBackend, room: Room) -> None:
    host = topology.namespaces[room.name]
    build_ipsets(read_ipsets(host.ipsets).sets.values())
    loader = RuleLoader(room.name, ("namespaces", room.name), topology.source)
    sources: list[RuleSource] = [*file_sources(host.rules_file, backend)]
    loader.load([*sources, *host.rule_sources(backend)])


def _listeners(lab: Lab) -> Iterator[dict[str, Any]]:
    for name, host in lab.topology.namespaces.items():
        for number, service in enumerate(host.services):
            place = lab.topology.source.place(("namespaces", name, "services", number))
            yield {
                "namespace": lab.namespaces[name],
                "lab_name": name,
                "place": clean_text(f" ({place})") if place else "",
                "protocol": service.protocol,
                "address": service.address,
                "port": service.port,
                "backlog": service.backlog,
                "accept": service.accepts,
                "full": service.full,
                "interface": service.interface,
            }
