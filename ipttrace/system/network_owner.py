"""The user namespace that the calling thread's network namespace belongs to (ioctl_nsfs(2))."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

NETWORK = Path("/proc/thread-self/ns/net")
OWN_USERS = Path("/proc/thread-self/ns/user")
NS_GET_USERNS = 0xB701
"""uapi/linux/nsfs.h; EPERM if the owner is outside the caller's user namespace."""


def network_owner() -> int | None:
    """Return the inode of the owner, None if it is outside of ours; raises OSError."""
    descriptor = os.open(NETWORK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        owner = fcntl.ioctl(descriptor, NS_GET_USERNS)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        return None
    finally:
        os.close(descriptor)
    try:
        return os.fstat(owner).st_ino
    finally:
        os.close(owner)


def is_ours() -> bool:
    """Tell whether it belongs to the user namespace of this very process; raises OSError."""
    return network_owner() == OWN_USERS.stat().st_ino
