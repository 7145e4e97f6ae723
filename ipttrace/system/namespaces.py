"""Finding a network namespace and doing something inside it.

A network namespace belongs to a thread (setns(2), net_namespaces(7)): work is done by a short-lived
thread that entered it, so the caller's own namespace never changes.  Sockets, and programs
started by that thread, stay in the namespace.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ipttrace.decode.text import clean_text
from ipttrace.errors import NotPermittedError, UsageError

T = TypeVar("T")

NAMED = Path("/run/netns")
CLONE_NEWNET = 0x40000000
"""uapi/linux/sched.h."""

WORDS = (
    "a name of 'ip netns list', a path, a process id, "
    "or the first 4 or more characters of a container's id"
)
"""How a namespace can be named."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace, by the name the user gave it and the file that stands for it."""

    name: str | None
    """None for the one that the tool runs in."""
    path: Path

    def __str__(self) -> str:
        return f"namespace {self.name}" if self.name else "this namespace"

    def is_same(self, other: Namespace) -> bool:
        """Tell whether another name stands for the same namespace; False where we may not look."""
        try:
            return self.path.samefile(other.path)
        except OSError:
            return False

    def run(self, function: Callable[[], T]) -> T:
        """Call `function` in a thread that is inside this namespace; return what it returns."""
        if self.name is None:
            return function()
        with ThreadPoolExecutor(1, thread_name_prefix="netns") as pool:
            return pool.submit(self._inside, function).result()

    def _inside(self, function: Callable[[], T]) -> T:
        self.enter()
        return function()

    @contextmanager
    def held(self) -> Iterator[Namespace]:
        """Yield the same namespace by an open file, whatever becomes of the name or process."""
        if self.name is None:
            yield self
            return
        descriptor = self._opened()
        try:
            yield Namespace(self.name, Path(f"/proc/self/fd/{descriptor}"))
        finally:
            os.close(descriptor)

    def enter(self) -> None:
        """Move the calling thread into this namespace, for good."""
        descriptor = self._opened()
        try:
            enter_descriptor(descriptor)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise UsageError(
                    f"cannot enter {self}: {self.path} is no network namespace", f"Give {WORDS}."
                ) from error
            raise NotPermittedError(
                f"cannot enter {self}: {error.strerror}", "Run as root, or grant CAP_SYS_ADMIN."
            ) from error
        finally:
            os.close(descriptor)

    def _opened(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError as error:
            raise NotPermittedError(
                f"cannot open {self} ({self.path}): {error.strerror}", "Run as root."
            ) from error
        except OSError as error:
            raise UsageError(
                f"cannot open {self} ({self.path}): {error.strerror}",
                "List namespaces with: ip netns list",
            ) from error


def enter_descriptor(descriptor: int) -> None:
    """Move the calling thread into the namespace of an open file (setns(2))."""
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def leave_for_new_network() -> None:
    """Move the calling thread into a network namespace that nobody else is in (unshare(2))."""
    if _libc.unshare(CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


HERE = Namespace(None, Path("/proc/self/ns/net"))
"""The namespace that the tool was started in."""


def find_namespace(text: str | None) -> Namespace:
    """Return the namespace that `text` means.

    It is a name of `ip netns`, a path, a process id, or the first characters of a container's id,
    looked for in this order.  Raises UsageError if there is none, or several containers.
    """
    if text is None:
        return HERE
    if "/" in text:
        return _checked(Namespace(text, Path(text)))
    named = NAMED / text
    if named.exists() and text not in ("", ".", ".."):
        return Namespace(text, named)
    of_process = _of_process(text) or _of_container(text)
    if of_process is not None:
        return Namespace(text, of_process)
    raise UsageError(f"no namespace {text!r}: {_known(text)}", f"Give {WORDS}.")


def find_namespaces(texts: Sequence[str]) -> list[Namespace]:
    """Return the namespaces that `texts` mean, or the tool's own if there are none.

    Raises UsageError also if two of them are one.
    """
    found = [find_namespace(text) for text in texts or (None,)]
    for number, one in enumerate(found):
        for other in found[:number]:
            if one.is_same(other):
                raise UsageError(
                    f"cannot trace {one} beside {other}: they are one namespace", "Name it once."
                )
    return found


def _of_process(text: str) -> Path | None:
    path = Path(f"/proc/{text}/ns/net")
    is_number = text.isdecimal() and text.isascii()
    return path if is_number and path.parent.parent.exists() else None


def _of_container(text: str) -> Path | None:
    from ipttrace.system.containers import find_container, may_be_id

    pid = find_container(text) if may_be_id(text) else None
    return None if pid is None else Path(f"/proc/{pid}/ns/net")


def _checked(namespace: Namespace) -> Namespace:
    if not namespace.path.exists():
        raise UsageError(
            f"no namespace {namespace.name!r}: {namespace.path} does not exist",
            f"Give {WORDS}.",
        )
    return namespace


def _known(text: str) -> str:
    there = NAMED.iterdir() if NAMED.is_dir() else ()
    names = sorted(clean_text(entry.name) for entry in there)
    known = f"there are {', '.join(names)}" if names else "there are no named ones"
    if text.isdecimal():
        return f"{known}, and no process has that id"
    return known
