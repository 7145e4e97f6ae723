"""Stand-ins for the ports: lists where the kernel would be, and a clock that jumps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ipttrace.decode.netlink import decode_datagram
from ipttrace.event import Event
from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.packet import Flow, PacketSummary
from ipttrace.ports import Datagram, RuleState
from ipttrace.request import Armed, Disarmed, TraceRequest, Trigger
from ipttrace.ruleset import Ruleset


@dataclass
class FakeClock:
    """Time that passes only while somebody waits."""

    time: float = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, descriptors: Sequence[int], seconds: float) -> None:
        self.time += max(seconds, 0.001)


@dataclass
class ListSource:
    """An event source that gives one batch a drain, then nothing."""

    batches: list[tuple[Sequence[bytes], int]] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    closed: int = 0

    @property
    def position(self) -> None:
        return None

    def announce(self) -> None:
        """Nothing is counted."""

    def fileno(self) -> int:
        return -1

    def drain(self) -> tuple[Sequence[Datagram], int]:
        if not self.batches:
            return [], 0
        data, overruns = self.batches.pop(0)
        return [Datagram(1000.0, each) for each in data], overruns

    def decode(self, datagrams: Sequence[Datagram], ruleset: Ruleset) -> Sequence[Event]:
        return [event for each in datagrams for event in decode_datagram(each.data, each.time)]

    def close(self) -> None:
        self.closed += 1


@dataclass
class RecordingRules:
    """Trace rules that note what was asked of them, and fail where told to."""

    log: list[str]
    fail_in: str = ""
    requests: list[TraceRequest] = field(default_factory=list)
    warnings: tuple[str, ...] = ()

    def _note(self, word: str) -> None:
        self.log.append(word)
        if word == self.fail_in:
            raise self.failure

    failure: BaseException = field(default_factory=lambda: RuntimeError("told to fail"))

    def arm(self, request: TraceRequest) -> Armed:
        self.requests.append(request)
        self._note("arm")
        return Armed(Trigger.RAW, request.backends)

    def rearm(self, request: TraceRequest, *, whole: bool) -> Armed:
        self.requests.append(request)
        self._note("rearm all" if whole else "rearm")
        return Armed(Trigger.RAW, request.backends)

    def quiet(self) -> None:
        self._note("quiet")

    def disarm(self) -> Disarmed:
        self.log.append("disarm")
        return Disarmed(clean=not self.warnings, hits=1, warnings=self.warnings)


class SameState:
    """Rules that never change."""

    def now(self) -> None:
        return None

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class FixedRules:
    """A reader whose rules never change."""

    ruleset: Ruleset

    def watch(self) -> RuleState:
        return SameState()

    def read(self, family: PacketFamily | None = None) -> Ruleset:
        return self.ruleset

    def backends(self, family: PacketFamily | None) -> frozenset[Backend]:
        return self.ruleset.backends()

    def interfaces(self) -> Mapping[int, str]:
        return {1: "lo", 2: "eth0"}

    def bridges(self) -> Mapping[int, int]:
        return {}

    def conntrack_entries(self) -> int:
        return 0


@dataclass
class ScriptedClient:
    """A client whose packets and results are given."""

    packets: Sequence[PacketSummary]
    log: list[str]
    results: Sequence[str | None] = ()
    fail_in: str = ""
    failure: BaseException = field(default_factory=lambda: RuntimeError("told to fail"))
    sent: int = 0

    def _note(self, word: str) -> None:
        self.log.append(word)
        if word == self.fail_in:
            raise self.failure

    def prepare(self) -> Sequence[Flow]:
        self._note("prepare")
        return [packet.flow for packet in self.packets]

    @property
    def identities(self) -> Sequence[PacketSummary]:
        return self.packets

    @property
    def device(self) -> str | None:
        return None

    @property
    def thread(self) -> int | None:
        return None

    def fileno(self) -> int | None:
        return None

    def send(self) -> None:
        self._note("send")
        self.sent += 1

    def poll(self) -> str | None:
        return self.results[self.sent - 1] if self.sent <= len(self.results) else None

    def finish(self) -> Sequence[str]:
        self.log.append("finish")
        return ()
