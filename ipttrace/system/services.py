"""The keeper of a lab: a process that holds its listeners, and takes it down when we are gone.

It reads JSON lines from its stdin.  The first names the namespaces that the lab will have; the
second the services, which it opens and answers with `ready` or the reason why not.  At the end of
its stdin, which comes also when its parent is killed, it closes the services and deletes the
namespaces.  A service sends back what it gets.
"""

from __future__ import annotations

import json
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ipttrace.errors import IptTraceError, KernelError
from ipttrace.system.namespaces import NAMED, Namespace
from ipttrace.system.netns_files import delete_namespace

CHUNK = 65536
DOWN_TIMEOUT = 5.0
"""Seconds that deleting a lab may take."""


class Keeper:
    """The parent's side: starts the process, tells it what to open, lets it go."""

    def __init__(self, namespaces: Sequence[str]) -> None:
        self.namespaces = tuple(namespaces)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ipttrace.system.services"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._say(list(namespaces))

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def open(self, services: Sequence[Mapping[str, Any]]) -> None:
        """Open listeners (`namespace protocol address port`); raises KernelError."""
        self._say(services)
        stdout = self._process.stdout
        answer = stdout.readline().strip() if stdout else ""
        if answer != "ready":
            raise KernelError(answer or "cannot open the services of the lab: their process ended")

    def close(self) -> Sequence[str]:
        """Let the process close and delete everything; return warnings."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with suppress(OSError):
                    stream.close()
        try:
            self._process.wait(DOWN_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        left = [name for name in self.namespaces if delete_namespace(name)]
        return [f"namespace {name} was not deleted by the lab's keeper: done now" for name in left]

    def _say(self, words: object) -> None:
        stdin = self._process.stdin
        if stdin is None:
            return
        try:
            stdin.write(json.dumps(words) + "\n")
            stdin.flush()
        except OSError as error:
            raise KernelError(f"cannot reach the keeper of the lab: {error.strerror}") from error


class Services:
    """The listeners, in one loop; ends when `control` does."""

    def __init__(self, control: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, None)

    def open(self, services: Sequence[Mapping[str, Any]]) -> None:
        """Bind every service in its namespace."""
        for service in services:
            listener = _bound(service)
            handler = self._accept if service["protocol"] == "tcp" else _echo_datagram
            self._selector.register(listener, selectors.EVENT_READ, handler)

    def serve(self) -> None:
        """Answer until the control descriptor ends."""
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                key.data(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            connection.settimeout(1.0)
            self._selector.register(connection, selectors.EVENT_READ, self._echo)

    def _echo(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(CHUNK)
            connection.sendall(data)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(connection)
            connection.close()


def _echo_datagram(listener: socket.socket) -> None:
    with suppress(OSError):
        data, peer = listener.recvfrom(CHUNK)
        listener.sendto(data, peer)


def _bound(service: Mapping[str, Any]) -> socket.socket:
    name, address, port = service["namespace"], service["address"], service["port"]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if service["protocol"] == "tcp" else socket.SOCK_DGRAM
    listener = Namespace(name, NAMED / name).run(lambda: socket.socket(family, kind))
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        if kind == socket.SOCK_STREAM:
            listener.listen()
    except OSError as error:
        listener.close()
        raise KernelError(
            f"cannot listen on {service['protocol']} {address} port {port} "
            f"in namespace {name}: {error.strerror}"
        ) from error
    return listener


def _end(*_: object) -> None:
    raise SystemExit


def _answer(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


def _serve(read: Callable[[], str]) -> None:
    requested = read()
    if not requested:
        return
    services = Services(sys.stdin.fileno())
    try:
        services.open(json.loads(requested))
    except IptTraceError as error:
        _answer(str(error))
        return
    _answer("ready")
    services.serve()


def main() -> None:
    """Be the keeper process."""
    signal.signal(signal.SIGTERM, _end)
    namespaces = json.loads(sys.stdin.readline() or "[]")
    try:
        _serve(sys.stdin.readline)
    finally:
        for name in namespaces:
            delete_namespace(name)


if __name__ == "__main__":
    main()
