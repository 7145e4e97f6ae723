"""A thread inside each namespace of a lab that is built: all are built at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from ipttrace.system.addresses import rtnetlink
from ipttrace.system.namespaces import Namespace

T = TypeVar("T")


class Room:
    """One thread that is inside a namespace, with an `IPRoute` there."""

    def __init__(self, name: str, namespace: Namespace) -> None:
        self.name = name
        """As the lab calls it."""
        self.namespace = namespace
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"lab-{name}")
        self._stack = ExitStack()
        self._ipr: Any = None

    @property
    def ipr(self) -> Any:
        """An `IPRoute` of the namespace; only for what is done by the room's thread."""
        return self._ipr

    def start(self, function: Callable[[Room], T]) -> Future[T]:
        """Have the thread call a function with this room."""
        return self._pool.submit(function, self)

    def enter(self) -> None:
        """Go in; the namespace must be there."""
        self.namespace.enter()
        self._ipr = self._stack.enter_context(rtnetlink())

    def leave(self) -> None:
        """End the thread."""
        self._pool.submit(self._stack.close).result()
        self._pool.shutdown()


class Rooms:
    """The rooms of one lab."""

    def __init__(self, namespaces: Mapping[str, Namespace]) -> None:
        self._rooms = {name: Room(name, namespace) for name, namespace in namespaces.items()}

    def __getitem__(self, name: str) -> Room:
        return self._rooms[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for room in self._rooms.values():
            room.leave()

    def everywhere(self, function: Callable[[Room], None]) -> None:
        """Call a function in all rooms at the same time; the first error is raised."""
        finish([room.start(function) for room in self._rooms.values()])


def finish(futures: Iterable[Future[None]]) -> None:
    """Wait for all; raise the first error, in their order."""
    waiting = list(futures)
    errors = [future.exception() for future in waiting]
    for error in errors:
        if error is not None:
            raise error
