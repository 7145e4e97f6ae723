"""Labs for tests in Python: what the pytest fixture `ipttrace_lab` gives."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from ipttrace.checks import Difference
from ipttrace.cli.compose import trace_probe
from ipttrace.diagnose.walk import name
from ipttrace.errors import IptTraceError, UsageError
from ipttrace.lab.building import RunningLab
from ipttrace.lab.comparing import compare, probe_paths
from ipttrace.lab.expectation import Expectation
from ipttrace.lab.lab_probe import Change, LabProbe
from ipttrace.lab.parts import LabBackend
from ipttrace.lab.runner import run_probe
from ipttrace.lab.scenario import Scenario, load_scenario, parse_scenario
from ipttrace.lab.stepping import steps
from ipttrace.path import Outcome, PacketPath
from ipttrace.probe import ProbeSpec
from ipttrace.render.side_by_side import step_lines
from ipttrace.render.text import fate_words, result_lines
from ipttrace.result import TraceResult
from ipttrace.system.capabilities import require_privilege
from ipttrace.system.lab_builder import LabBuilder

PACKET_WORDS = ("src", "tcp_flags", "size", "ttl", "count", "let_out", "wait")

Guard = Callable[[Callable[[], Any]], Any]
"""Calls something, and turns what is no fault of the test's into what its framework does then."""


class LabFactory:
    """Brings labs up, and takes all of them down at the end of the `with` block."""

    def __init__(self, tell: Callable[[Answer], None], guard: Guard = lambda work: work()) -> None:
        self._tell = tell
        self._guard = guard
        self._labs = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._labs.__exit__(kind, error, traceback)

    def __call__(self, lab: str | Path, backend: str | None = None) -> ProbedLab:
        """Bring up a lab: a name of `ipttrace lab list`, a file, or the YAML text itself.

        `backend` is `legacy`, `nft` or `both`; the lab's first one unless it is given.
        """
        __tracebackhide__ = True
        scenario: Scenario = _plainly(lambda: _scenario(str(lab)))
        chosen = backend or scenario.backends[0]
        if chosen not in scenario.backends:
            raise UsageError(
                f"cannot bring up lab {scenario.name} on {chosen!r}: it is not made for it",
                f"Choose {' or '.join(scenario.backends)}.",
            )

        def up() -> RunningLab:
            require_privilege(aim="bring up a lab")
            return LabBuilder(title=scenario.title).up(scenario.topology, LabBackend(chosen))

        running: RunningLab = _plainly(lambda: self._guard(up))
        self._labs.callback(lambda: _tell_leftovers(running.down()))
        return ProbedLab(scenario, LabBackend(chosen), running, self._tell, self._guard)


def _scenario(lab: str) -> Scenario:
    """Return the lab of a name, of a file, or of a text, which needs neither name nor title."""
    if "\n" in lab:
        return parse_scenario(lab, "the test", {"name": "test", "title": "A lab of a test"})
    return load_scenario(lab)


def _plainly(work: Callable[[], Any]) -> Any:
    """Call something; what it cannot do is told without the way through this package."""
    __tracebackhide__ = True
    try:
        return work()
    except IptTraceError as error:
        raise error.with_traceback(None) from None


class ProbedLab:
    """A lab that is up."""

    def __init__(
        self,
        scenario: Scenario,
        backend: LabBackend,
        running: RunningLab,
        tell: Callable[[Answer], None],
        guard: Guard,
    ) -> None:
        self.scenario = scenario
        self.backend = backend
        self._running = running
        self._tell = tell
        self._guard = guard

    def __repr__(self) -> str:
        return f"<lab {self.scenario.name} on {self.backend}>"

    @property
    def namespaces(self) -> dict[str, str]:
        """The real name of each namespace, by its name in the lab: for `ip netns exec`."""
        return dict(self._running.namespaces)

    def probe(
        self,
        send: str,
        *,
        in_: str | None = None,
        from_: str | None = None,
        netns: str | Sequence[str] | None = None,
        **words: Any,
    ) -> Answer:
        """Send one probe, `PROTO DST[:PORT]`, and return what became of it.

        `in_` is the interface by which it comes in, `from_` the namespace whose client sends it;
        without both a client in the first of `netns` does.  `netns` is where it is traced: without
        it where the lab's own first probe is, or in the only namespace.  The other words are those
        of a lab file's probe: src, tcp_flags, size, ttl, count, let_out, wait.
        """
        __tracebackhide__ = True
        traced = self._traced(netns)
        fields: dict[str, Any] = {"name": send, "send": send, "netns": traced}
        fields |= {"in": in_, "from": from_}
        fields["expect"] = {"outcome": "delivered"}  # nothing is compared here
        try:
            probe = msgspec.convert(fields | _of_packet(words), LabProbe)
            self.scenario.check_probes([probe])
        except ValueError as error:
            raise UsageError(f"cannot send {send}: {error}") from None
        run = _plainly(
            lambda: self._guard(
                lambda: run_probe(probe, self._running.namespaces, _trace, self.backend)
            )
        )
        answer = Answer(send, traced[-1], self.backend, run.result)
        self._tell(answer)
        return answer

    def change(self, namespace: str, **what: Any) -> None:
        """Make something different in a namespace, for the probes after it.

        The words are those of a lab file's `change`: iptables, ip6tables, nftables, sysctls, link.
        """
        __tracebackhide__ = True
        fields = {key.replace("_", "-"): value for key, value in what.items()}
        try:
            change = msgspec.convert({**fields, "namespace": namespace}, Change)
        except ValueError as error:
            raise UsageError(f"cannot change {namespace}: {error}") from None
        if namespace not in self.scenario.namespaces:
            raise UsageError(f"cannot change {namespace}: lab {self.scenario.name} has none such")
        _plainly(lambda: self._running.change(change))

    def _traced(self, netns: str | Sequence[str] | None) -> tuple[str, ...]:
        __tracebackhide__ = True
        if netns is not None:
            return (netns,) if isinstance(netns, str) else tuple(netns)
        if self.scenario.probes:
            return self.scenario.probes[0].netns
        names = tuple(self.scenario.namespaces)
        if len(names) != 1:
            raise UsageError(
                f"cannot probe lab {self.scenario.name}: it has several namespaces",
                f"Give netns, one or more of {', '.join(names)}.",
            )
        return names


def _of_packet(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a lab file's probe that describe the packet; raises ValueError."""
    for word in words:
        if word not in PACKET_WORDS:
            raise ValueError(f"there is no word {word!r}; known are {', '.join(PACKET_WORDS)}")
    return {key.replace("_", "-"): value for key, value in words.items()}


def _listed(word: str, value: Any) -> Any:
    return [value] if word.startswith("crosses") and isinstance(value, str) else value


def _tell_leftovers(warned: Sequence[str]) -> None:
    for each in warned:
        warnings.warn(each, stacklevel=2)


def _trace(spec: ProbeSpec) -> TraceResult:
    return trace_probe(spec, answer=_ignore, note=_ignore, follows=False)


def _ignore(_: object) -> None:
    """The result is returned, too."""


class Answer:
    """What became of a probe; it is about the last namespace that was traced, and the first packet.

    `result` has everything: all packets, the answers, evidence, warnings.
    """

    def __init__(self, sent: str, netns: str, backend: str, result: TraceResult) -> None:
        self.sent = sent
        self.netns = netns
        self.backend = backend
        self.result = result

    def __repr__(self) -> str:
        fate = fate_words(self.path) if self.path else "not seen"
        return f"<{self.sent} in {self.netns}: {fate}>"

    @property
    def path(self) -> PacketPath | None:
        """The way of the first packet; None if it was not seen."""
        return next(iter(probe_paths(self.netns, self.result)), None)

    @property
    def outcome(self) -> Outcome | None:
        """The packet's fate, a word as in `ipttrace probe --expect`."""
        return self.path.outcome if self.path else None

    @property
    def cause(self) -> str | None:
        """The code of the cause."""
        return self.path.diagnosis.cause if self.path and self.path.diagnosis else None

    @property
    def client(self) -> str | None:
        """What the client's call returned; None of an injected packet."""
        return self.result.client[0] if self.result.client else None

    @property
    def hops(self) -> tuple[str, ...]:
        """The names of the rules, policies and ends of chains it met, in order."""
        return tuple(name(hop) for hop in self.path.chain_hops) if self.path else ()

    def expect(self, **fields: Any) -> Self:
        """Raise AssertionError unless all is as expected; the words are those of a lab file.

        outcome, cause, rule, nat, crosses, crosses_not, client, netns: `crosses_not` is its
        `crosses-not`; of these two a single one needs no list.
        """
        __tracebackhide__ = True
        named = {key.replace("_", "-"): _listed(key, value) for key, value in fields.items()}
        unknown = named.keys() - set(Expectation.__struct_encode_fields__)
        if unknown:
            raise UsageError(
                f"cannot expect {', '.join(sorted(unknown))}: there is no such word",
                f"Known are {', '.join(Expectation.__struct_fields__)}.",
            )
        try:
            wanted = msgspec.convert(named, Expectation).on(self.backend)
        except ValueError as error:
            hint = f"Outcomes are {', '.join(Outcome)}." if "$.outcome" in str(error) else ""
            raise UsageError(f"cannot expect {fields}: {error}", hint) from None
        netns = wanted.netns or self.netns
        found = compare(wanted, netns, self.result)
        if found:
            raise AssertionError("\n".join(self._parting(wanted, netns, found)))
        return self

    def _parting(self, wanted: Expectation, netns: str, found: Sequence[Difference]) -> list[str]:
        lines = [f"{self.sent} in {netns} is not as expected", *(f"! {each}" for each in found)]
        for path in probe_paths(netns, self.result):
            shown = tuple(steps(wanted, path, self.result.client))
            lines += ["", *step_lines(shown, width=None, color=False)]
        return lines

    def report(self) -> str:
        """Return every packet's hops, fate and why, as `ipttrace probe` shows them."""
        return "\n".join(result_lines(self.result, width=None, color=False))
