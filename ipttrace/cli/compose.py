"""Joins the kernel's side to the core for one probe: the composition root."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial

from ipttrace.cli.event_sources import Sources
from ipttrace.diagnose.onward import tell_onward
from ipttrace.errors import NotSupportedError, UsageError
from ipttrace.gathering import Sources as EvidenceSources
from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.ports import ProbeClient
from ipttrace.probe import ProbeSpec
from ipttrace.request import Trigger
from ipttrace.result import TraceResult
from ipttrace.session import Kernel, Plan, TraceSession
from ipttrace.system import addresses, capabilities
from ipttrace.system.client import RealClient
from ipttrace.system.clock import SystemClock
from ipttrace.system.guardian import Guardian
from ipttrace.system.inject import InjectingClient
from ipttrace.system.namespaces import Namespace, find_namespace, find_namespaces
from ipttrace.system.neighbour_namespaces import find_onward
from ipttrace.system.packets import warm_up
from ipttrace.system.rulesets import NamespaceRules
from ipttrace.system.scene import NamespaceScene
from ipttrace.system.trace_instance import TraceInstance
from ipttrace.tracer import Side

Answer = Callable[[TraceResult], None]
Note = Callable[[str], None]


def trace_probe(
    spec: ProbeSpec,
    *,
    answer: Answer,
    note: Note,
    hint: Note = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
    follows: bool = True,
) -> TraceResult:
    """Send and trace what `spec` asks for.

    `answer` gets the paths as soon as they are known, before all is taken back; `note` hears of
    what takes long or goes wrong, `hint` of what the user may want to know about such a probe.
    With `follows` it is said where on this host a probe goes on.
    """
    traced = find_namespaces(spec.netns)
    capabilities.require_privilege()
    session = secrets.token_hex(4)
    clock = SystemClock()
    with ExitStack() as cleaning:
        sides: list[Side] = []
        guardians: list[Guardian] = []
        for namespace in traced:
            guardian, side = open_side(namespace, session, spec.family, clock, note)
            cleaning.callback(guardian.disarm)
            guardians.append(guardian)
            sides.append(side)
        spec = _placed(spec, traced[0], hint)
        warming = _warming(spec)
        client = _client(spec, traced[0], session, guardians[0])
        sources = evidence_sources(spec, traced, session)
        if sources.events is not None:
            cleaning.callback(sources.events.close)
        kernel = Kernel(sides, client, clock, cancelled, sources)
        warming.join()
        told = _onward_teller(traced if follows else ())
        session_run = TraceSession(_plan(spec, session, traced), kernel)
        return told(session_run.run(lambda result: answer(told(result))))


def evidence_sources(spec: ProbeSpec, traced: Sequence[Namespace], session: str) -> EvidenceSources:
    """Return where evidence comes from; the kernel's events may be out of reach."""
    if spec.evidence == "none":
        return EvidenceSources()
    scenes = {namespace.name: NamespaceScene(namespace) for namespace in traced}
    try:
        return EvidenceSources(TraceInstance(session), scenes)
    except NotSupportedError as error:
        return EvidenceSources(None, scenes, (error.message,))


def _onward_teller(traced: Sequence[Namespace]) -> Callable[[TraceResult], TraceResult]:
    """Return what adds to a result where its probes went on; each is looked for once.

    Nothing is added if `traced` is empty.
    """
    if not traced:
        return lambda result: result
    names = [namespace.name for namespace in traced]
    find = cache(partial(find_onward, traced))
    return lambda result: tell_onward(result, names, find)


def open_side(
    namespace: Namespace, session: str, family: PacketFamily | None, clock: SystemClock, note: Note
) -> tuple[Guardian, Side]:
    """Start the namespace's guardian; it warms up while the caller goes on."""
    reader = NamespaceRules(namespace)
    if hidden := reader.hidden():
        note(hidden)
    legacy = Backend.LEGACY in reader.backends(family)
    guardian = Guardian.start(namespace, session=session, legacy=legacy, notify=note)
    sources = Sources(namespace, session, family, guardian, reader, clock, note)
    side = Side(
        rules=guardian,
        reader=reader,
        open_source=sources.open,
        reserve_source=sources.reserve,
        netns=namespace.name,
    )
    return guardian, side


def _placed(spec: ProbeSpec, traced: Namespace, hint: Note) -> ProbeSpec:
    """Return `spec` with the interface that it comes in by, and say what it does not show."""
    if spec.from_netns is not None:
        find_namespace(spec.from_netns)  # a wrong name is an error before it is a client
        hint(f"a real client in {spec.from_netns} sends this: the service sees it")
        return spec
    if spec.in_interface is not None:
        return spec
    if spec.src is not None and not addresses.is_local(traced, spec.src, spec.family):
        interface = addresses.interface_towards(traced, spec.src, spec.family)
        if interface is None:
            raise UsageError(
                f"cannot send from {spec.src}: it is no address of {traced}, and there is no "
                "route to it",
                "Name the interface it comes in by with --in.",
            )
        hint(f"{spec.src} is not local: injecting on {interface}, where the route to it leads")
        return replace(spec, in_interface=interface)
    interface = addresses.interface_with(traced, spec.dst, spec.family)
    if interface not in (None, "lo"):
        hint(f"outside clients take another way to {spec.dst}: repeat with --in {interface}")
    return spec


def _warming(spec: ProbeSpec) -> threading.Thread:
    """Import what builds the packets while the guardian warms up."""

    def build_nothing() -> None:
        """A real client's packets are made by the kernel."""

    builder = partial(warm_up, spec.family) if spec.injected else build_nothing
    thread = threading.Thread(target=builder, daemon=True)
    thread.start()
    return thread


def _client(spec: ProbeSpec, traced: Namespace, session: str, guardian: Guardian) -> ProbeClient:
    if spec.injected:
        return InjectingClient(spec, traced, session, guardian)
    return RealClient(spec, find_namespace(spec.from_netns) if spec.from_netns else traced)


def _plan(spec: ProbeSpec, session: str, traced: Sequence[Namespace]) -> Plan:
    return Plan(
        session=session,
        made_in=_made_in(spec, traced),
        trigger=spec.trigger or Trigger.RAW,
        injected=spec.injected,
        contain=spec.injected and not spec.let_out,
        in_interface=spec.in_interface,
        packets=spec.count,
        wait=spec.wait,
    )


def _made_in(spec: ProbeSpec, traced: Sequence[Namespace]) -> int | None:
    """Return which of the traced namespaces makes the packets, by the file that stands for it."""
    if spec.injected:
        return None
    if spec.from_netns is None:
        return 0
    client = find_namespace(spec.from_netns)
    same = (number for number, each in enumerate(traced) if each.is_same(client))
    return next(same, None)
