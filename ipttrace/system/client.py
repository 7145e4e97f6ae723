"""A client whose packets are real: the kernel makes, routes and resends them."""

from __future__ import annotations

import select
import threading
from collections.abc import Sequence
from contextlib import ExitStack

from ipttrace.packet import Flow, PacketSummary
from ipttrace.probe import ProbeSpec
from ipttrace.system.attempts import ATTEMPTS, Attempt
from ipttrace.system.namespaces import Namespace


class RealClient:
    """Implements `ports.ProbeClient`: connect(), send() or an echo from `namespace`.

    All sockets are bound in `prepare`, so that every flow is known before the first packet.
    """

    def __init__(self, spec: ProbeSpec, namespace: Namespace) -> None:
        self.spec = spec
        self.namespace = namespace
        self._attempts: list[Attempt] = []
        self._current: Attempt | None = None
        self._sent = 0
        self.thread: int | None = None
        self._ready = select.epoll()
        self._stack = ExitStack()
        self._stack.callback(self._ready.close)

    @property
    def device(self) -> None:
        """Nothing is injected."""
        return

    @property
    def flows(self) -> Sequence[Flow]:
        """The flow of each packet, in the order of sending."""
        return [attempt.flow for attempt in self._attempts]

    @property
    def identities(self) -> Sequence[PacketSummary]:
        """What is known of each packet: ports, TCP sequence number, echo id, payload.

        The kernel chooses the IP id (None), the TTL unless given and the length of a SYN (0).
        """
        return [attempt.summary for attempt in self._attempts]

    def prepare(self) -> Sequence[Flow]:
        """Open and bind one socket a packet in the client's namespace."""
        try:
            self.namespace.run(self._open_all)
        except BaseException:
            self.finish()
            raise
        return self.flows

    def send(self) -> None:
        """Start the next packet's call; it does not block."""
        attempt = self._attempts[self._sent]
        self._forget_current()
        self._sent += 1
        self._current = attempt
        self.thread = threading.get_native_id()
        attempt.start()
        if attempt.result is None:
            self._ready.register(attempt.socket, attempt.events)

    def poll(self) -> str | None:
        """Return the last packet's result: CONNECTED, REPLIED, or an errno's name."""
        return self._current.poll() if self._current else None

    def fileno(self) -> int | None:
        """Return a descriptor that becomes readable when `poll` is worth another look."""
        if self._current is None or self._current.result is not None:
            return None
        return self._ready.fileno()

    def finish(self) -> Sequence[str]:
        """Close the sockets; a connection ends as any client's does."""
        self._current = None
        self._stack.close()
        return ()

    def _open_all(self) -> None:
        kind = ATTEMPTS[self.spec.protocol]
        for _ in range(self.spec.count):
            self._attempts.append(self._open_one(kind))

    def _open_one(self, kind: type[Attempt]) -> Attempt:
        """Open a socket; not one whose own port is the port it will connect to.

        A TCP socket that connects to itself succeeds without any listener (RFC 9293 section
        3.5, simultaneous open).
        """
        while True:
            attempt = kind(self.spec)
            self._stack.callback(attempt.close)
            if attempt.flow.sport is None or attempt.flow.sport != self.spec.dport:
                return attempt
            if self.spec.sport is not None:
                return attempt

    def _forget_current(self) -> None:
        if self._current is not None and self._current.result is None:
            self._ready.unregister(self._current.socket)
