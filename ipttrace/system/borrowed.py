"""Settings of the kernel that sessions change for a time, and that the last of them puts back.

A session that uses a setting holds an abstract name `ipttrace-setting/<setting>/<user>/<before>`
in the namespace that the setting belongs to (see `presence`).  The name says what the setting was
before the first session changed it, so that any session, the last one, can put that back.  Main
process and guardian both hold it: it outlives either of them.  Where the setting is the whole
machine's, a note in a file outlives both: the next session, or `ipttrace clean`, puts it back.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ipttrace.errors import KernelError, NotPermittedError, NotSupportedError
from ipttrace.system import presence
from ipttrace.system.namespaces import Namespace

PREFIX = "ipttrace-setting/"
SYSCTLS = Path("/proc/sys")
NAMESPACES = Path("/proc/self/fd")


@dataclass(frozen=True, slots=True)
class Setting:
    """A sysctl and what a session needs it to be."""

    name: str
    """As sysctl(8) writes it: `net.netfilter.nf_log_all_netns`."""
    value: str
    note: str | None = None
    """Where to write down what it was; only for a setting that outlives every namespace."""

    @property
    def path(self) -> Path:
        """The file that stands for it, in the namespace of the thread that opens it."""
        return SYSCTLS / self.name.replace(".", "/")


class Borrowed:
    """One session's use of a setting."""

    def __init__(
        self, setting: Setting, namespace: Namespace, name: str, before: str, holder: socket.socket
    ) -> None:
        self.setting = setting
        self.namespace = namespace
        self.name = name
        self.before = before
        """What it was before the first session came."""
        self.holder = holder

    @property
    def changed(self) -> bool:
        """Whether it has to be another than it was."""
        return self.before != self.setting.value

    def apply(self) -> None:
        """Change the setting; raises an error if the kernel refuses."""
        if self.changed:
            _note(self.setting, self.before)
            self.namespace.run(lambda: _write(self.setting, self.setting.value))

    def put_back(self) -> None:
        """Put the setting back, unless another session still needs it or somebody changed it."""
        if self.holder.fileno() < 0:
            return
        self.namespace.run(self._put_back_here)
        self.close()

    def _put_back_here(self) -> None:
        with presence.only_one():
            others = [name for name in _in_use(self.setting) if name != self.name]
            if self.changed and not others:
                _restore(self.setting, self.before)

    def close(self) -> None:
        """Stop holding the name."""
        self.holder.close()


def borrow(setting: Setting, namespace: Namespace, user: str) -> Borrowed:
    """Note what the setting is before it is changed; `apply` changes it.

    `user` is the session, and the namespace that it works in where that is another one.
    """

    def take() -> Borrowed:
        with presence.only_one():
            used = _in_use(setting)
            before = used[0].rpartition("/")[2] if used else _before(setting)
            name = f"{PREFIX}{setting.name}/{user}/{before}"
            try:
                holder = presence.take_name(name)
            except OSError as error:
                raise KernelError(f"cannot use {setting.name}: {error.strerror}") from error
            return Borrowed(setting, namespace, name, before, holder)

    return namespace.run(take)


def inherited(setting: Setting, name: str, descriptors: tuple[int, int]) -> Borrowed:
    """Return what another process borrowed and passed on: the namespace, and the held name."""
    namespace, holder = descriptors
    path = NAMESPACES / str(namespace)
    before = name.rpartition("/")[2]
    where = Namespace("of the setting", path)
    return Borrowed(setting, where, name, before, socket.socket(fileno=holder))


def put_back_left(setting: Setting, namespace: Namespace) -> bool:
    """Put back what a session noted that died with its guardian; return whether there was one."""

    def put_back() -> bool:
        with presence.only_one():
            noted = _noted(setting)
            if noted is None or _in_use(setting):
                return False
            _restore(setting, noted)
            return True

    return namespace.run(put_back)


def is_borrowed(setting: Setting, namespace: Namespace) -> bool:
    """Return whether a session uses the setting now."""
    return bool(namespace.run(lambda: _in_use(setting)))


def _in_use(setting: Setting) -> list[str]:
    """Return the names of those who use the setting, in the calling thread's namespace."""
    return [holder.name for holder in presence.holders(f"{PREFIX}{setting.name}/")]


def _before(setting: Setting) -> str:
    """Return what the setting was before anybody of us changed it."""
    now = _read(setting)
    return _noted(setting) or now if now == setting.value else now


def _restore(setting: Setting, before: str) -> None:
    """Write what was before, but not over what somebody else wrote meanwhile."""
    if _read(setting) == setting.value:
        _write(setting, before)
    if setting.note is not None:
        with suppress(OSError):
            Path(setting.note).unlink(missing_ok=True)


def _note(setting: Setting, before: str) -> None:
    if setting.note is not None:
        with suppress(OSError):  # it is there for the worst case only
            Path(setting.note).write_text(f"{before}\n")


def _noted(setting: Setting) -> str | None:
    try:
        text = Path(setting.note).read_text().strip() if setting.note is not None else ""
    except OSError:
        return None
    return text if text.isdecimal() else None


def _read(setting: Setting) -> str:
    try:
        return setting.path.read_text().strip()
    except OSError as error:
        raise NotSupportedError(f"cannot read {setting.name}: {error.strerror}") from error


def _write(setting: Setting, value: str) -> None:
    attempt = f"cannot set {setting.name}={value}"
    try:
        setting.path.write_text(value)
    except PermissionError as error:
        raise NotPermittedError(
            f"{attempt}: {error.strerror}", "Run as the host's root."
        ) from error
    except FileNotFoundError as error:
        raise NotSupportedError(
            f"{attempt}: this kernel has no such logger", "Load it: modprobe nf_log_syslog."
        ) from error
    except OSError as error:
        raise KernelError(
            f"{attempt}: {error.strerror}", f"Set it with: sysctl {setting.name}={value}"
        ) from error


def namespace_number(namespace: Namespace) -> int:
    """Return the number that the kernel gave to a namespace."""
    return namespace.path.stat().st_ino
