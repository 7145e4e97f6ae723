"""The services of a lab: sockets that listen in its namespaces, and answer in one loop."""

from __future__ import annotations

import json
import os
import resource
import selectors
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ipttrace.errors import IptTraceError, KernelError
from ipttrace.system.namespaces import NAMED, Namespace

CHUNK = 65536
ECHO_TIMEOUT = 1.0
"""Seconds that a client may take to read what it is sent back."""
FILL_TIMEOUT = 1.0
"""Seconds in which a connection to a backlog that is not full is made."""


class Services:
    """The listeners, in one loop; ends when `control` does, unless it was told to stay."""

    def __init__(self, control: int, answer: Callable[[str], None]) -> None:
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, None)
        self._control = control
        self._answer = answer
        self._pending = b""
        self._stays = False
        self._held: list[socket.socket] = []
        """Connections that fill backlogs, and the listeners that never take them."""
        _raise_limit()

    def open(self, services: Sequence[Mapping[str, Any]]) -> None:
        """Bind every service in its namespace; fill the backlogs that are to be full."""
        for service in services:
            listener = _bound(service)
            if not service["accept"]:
                self._held.append(listener)
            elif service["protocol"] == "tcp":
                self._selector.register(listener, selectors.EVENT_READ, self._accept)
            else:
                self._selector.register(listener, selectors.EVENT_READ, _echo_datagram)
            if service["full"]:
                self._held += _filling(service, listener)

    def serve(self) -> None:
        """Answer until the control descriptor ends."""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    key.data(key.fileobj)
                elif not self._obey():
                    return

    def _obey(self) -> bool:
        """Do what the control descriptor says; return whether to go on."""
        data = os.read(self._control, CHUNK)
        if not data:
            self._selector.unregister(self._control)
            return self._stays
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request == "stay":
                self._stays = True
                self._answer("ready")
                continue
            try:
                self.open(request)
            except IptTraceError as error:
                self._answer(str(error))
            else:
                self._answer("ready")
        return True

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            connection.settimeout(ECHO_TIMEOUT)
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
    address, port = service["address"], service["port"]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if service["protocol"] == "tcp" else socket.SOCK_DGRAM
    listener = _inside(service).run(lambda: socket.socket(family, kind))
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if service["interface"]:
            device = os.fsencode(service["interface"]) + b"\0"
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        listener.bind((address, port))
        if kind == socket.SOCK_STREAM:
            listener.listen(service["backlog"])
    except OSError as error:
        listener.close()
        raise KernelError(f"{_tried(service)}: {error.strerror}") from error
    return listener


def _filling(service: Mapping[str, Any], listener: socket.socket) -> list[socket.socket]:
    """Return connections that fill a backlog: one more than it counts (sk_acceptq_is_full)."""
    address, port = listener.getsockname()[:2]
    made: list[socket.socket] = []
    for _ in range(service["backlog"] + 1):
        client = _inside(service).run(lambda: socket.socket(listener.family, socket.SOCK_STREAM))
        made.append(client)
        client.settimeout(FILL_TIMEOUT)
        try:
            client.connect((address, port))
        except OSError as error:
            raise KernelError(f"{_tried(service)} with a full backlog: {error}") from error
    return made


def _inside(service: Mapping[str, Any]) -> Namespace:
    name = service["namespace"]
    return Namespace(name, NAMED / name)


def _tried(service: Mapping[str, Any]) -> str:
    where = service.get("place", "")
    return (
        f"cannot listen on {service['protocol']} {service['address']} port {service['port']} "
        f"in namespace {service.get('lab_name', service['namespace'])}{where}"
    )


def _raise_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
