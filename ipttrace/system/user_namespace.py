"""A user namespace of one's own, where an ordinary user may build and trace labs.

What `unshare --map-root-user --mount --net` does (user_namespaces(7)), in the order that lets the
user read the tables of ip_tables: the network namespace is made by who is root already
(xt_proto_init in net/netfilter/x_tables.c).  /run is an empty file system of our own, for names of
namespaces and iptables' lock; the user's runtime directory is in it again.

The process must have one thread, and stays inside for good.  What the kernel keeps for the whole
machine is out of reach, so tracefs: evidence of the kernel's events is missing.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ipttrace.errors import KernelError, NotPermittedError
from ipttrace.system.capabilities import STATUS, missing_privileges
from ipttrace.system.namespaces import CLONE_NEWNET, NAMED
from ipttrace.system.netns_files import mount

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
"""uapi/linux/sched.h."""
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
"""uapi/linux/mount.h."""
RUN = Path("/run")

SWITCHES = {
    "/proc/sys/user/max_user_namespaces": ("0", "user.max_user_namespaces=15000"),
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "kernel.unprivileged_userns_clone=1"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
}
"""Settings that forbid it: the value that does, and how root allows it."""

NOTE = (
    "not root: working in a user namespace of our own; what only the whole kernel's events show is "
    "missing"
)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class _State:
    """Who we were before."""

    uid: int | None = None


_state = _State()


def is_inside() -> bool:
    """Return whether this process works in a user namespace that `enter` made or joined."""
    return _state.uid is not None


def original_user() -> int:
    """Return the user's id outside."""
    return os.geteuid() if _state.uid is None else _state.uid


def enter_if_needed(aim: str = "build labs") -> bool:
    """Make sure that this process may build namespaces; return whether it had to go inside.

    Who is root in a user namespace only, whose /run is somebody else's, goes into a second one.
    Raises NotPermittedError that says what is missing.
    """
    if is_inside() or (not missing_privileges(STATUS.read_text()) and _is_ours(RUN)):
        return False
    enter(aim)
    return True


def enter(aim: str = "build labs") -> None:
    """Move this process into namespaces of its own; raises NotPermittedError."""
    if _threads() != 1:
        raise KernelError(f"cannot {aim} in a user namespace: this process has several threads")
    uid, gid = os.geteuid(), os.getegid()
    try:
        _call(_libc.unshare, CLONE_NEWUSER | CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1\n")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1\n")
        mount(None, Path("/"), None, MS_REC | MS_PRIVATE)
        _mount_run()
        _call(_libc.unshare, CLONE_NEWNET)
    except OSError as error:
        raise _refusal(aim, error) from error
    _state.uid = uid


def join(pid: int) -> None:
    """Move this process into the user and mount namespace of another one of the same user.

    Raises NotPermittedError.
    """
    uid = os.geteuid()
    try:
        for name, kind in (("user", CLONE_NEWUSER), ("mnt", CLONE_NEWNS)):
            descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _call(_libc.setns, descriptor, kind)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise NotPermittedError(
            f"cannot enter the user namespace of process {pid}: {error.strerror}",
            "Only who brought the lab up can do that, as long as its keeper lives.",
        ) from error
    _state.uid = uid


def _is_ours(folder: Path) -> bool:
    """Tell whether all in a folder is up to us: who may only write there finds others' files."""
    return folder.stat().st_uid == os.geteuid() and os.access(folder, os.W_OK)


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _mount_run() -> None:
    """Make /run empty and our own, with the user's runtime directory in it."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/")
    descriptor = -1
    if RUN in runtime.parents:
        with suppress(OSError):
            descriptor = os.open(runtime, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    mount(Path("run"), RUN, "tmpfs", 0)
    NAMED.mkdir(mode=0o755)
    if descriptor >= 0:
        runtime.mkdir(mode=0o700, parents=True)
        mount(Path(f"/proc/self/fd/{descriptor}"), runtime, None, MS_BIND | MS_REC)
        os.close(descriptor)


def _refusal(aim: str, error: OSError) -> NotPermittedError:
    for path, (value, change) in SWITCHES.items():
        setting = Path(path)
        if setting.exists() and setting.read_text().strip() == value:
            name = ".".join(setting.parts[3:])
            return NotPermittedError(
                f"cannot {aim} without root: user namespaces are off here ({name} is {value})",
                f"Run as root, or allow it: sudo sysctl {change}",
            )
    reason = error.strerror
    if error.errno == errno.ENOSYS:
        reason = "this kernel has none"
    hint = "Run as root: sudo ipttrace ..."
    if _state.uid is None and os.geteuid() == 0:
        hint = "Grant this container CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN."
    return NotPermittedError(
        f"cannot {aim} without root's rights: making a user namespace is refused: {reason}", hint
    )


def _call(function: Callable[..., int], *arguments: object) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
