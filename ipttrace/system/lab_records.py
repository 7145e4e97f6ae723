"""Which labs are up: a file each, so that a later command finds those whose owner was killed.

A record is written before the first namespace is made, and removed after the last one is gone.  A
lab whose owner is dead is removed by the next command, unless it was to stay (`lab up`): then its
keeper is its owner.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from ipttrace.decode.text import clean_text
from ipttrace.errors import KernelError, UsageError
from ipttrace.system import user_namespace
from ipttrace.system.namespaces import NAMED
from ipttrace.system.netns_files import delete_namespace
from ipttrace.system.processes import ProcessMark, mark_of

ROOTS = Path("/run/ipttrace/labs")
SUFFIX = ".json"
DOWN_TIMEOUT = 5.0
"""Seconds that the keeper of a lab may take to end."""
HALF_WRITTEN = 60.0
"""Seconds after which a record that cannot be read is taken for that of a dead process."""


class Record(msgspec.Struct, frozen=True):
    """One lab that is up, or that comes up or down."""

    name: str
    """The name of its file: the user's name for a lab that stays, else a random one."""
    title: str
    backend: str
    namespaces: dict[str, str]
    """The lab's own name to the real one."""
    owner: ProcessMark | None
    """None for a lab that stays up when the command ends."""
    keeper: ProcessMark | None = None
    file: str = ""
    """Where it was read from."""
    made: float = 0.0
    """Seconds since the epoch."""
    user_namespace: bool = False
    """Its namespaces are in a user namespace of the keeper's, not below /run/netns."""

    @property
    def stays(self) -> bool:
        """Whether it is to stay up until it is told to come down."""
        return self.owner is None

    @property
    def is_left(self) -> bool:
        """Whether nobody will ever take it down."""
        holder = self.keeper if self.user_namespace and self.stays else self.owner
        return holder is not None and not holder.alive


def folder() -> Path:
    """Return where this user's records are; it is made if it is not there.

    Root's is below /run; a user's in XDG_RUNTIME_DIR, else below /tmp.  UsageError if that belongs
    to somebody else.
    """
    is_root = os.geteuid() == 0 and not user_namespace.is_inside()
    path = ROOTS if is_root else _users_folder()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat(follow_symlinks=False)
    except OSError as error:
        raise KernelError(f"cannot make {path}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise UsageError(
            f"cannot keep records of labs in {path}: it belongs to somebody else",
            "Remove it, or set XDG_RUNTIME_DIR.",
        )
    return path


def _users_folder() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir() and os.access(runtime, os.W_OK):
        return Path(runtime, "ipttrace", "labs")
    return Path(f"/tmp/ipttrace-{user_namespace.original_user()}")  # noqa: S108


def add(record: Record) -> None:
    """Write a new record; UsageError if there is one of that name."""
    path = folder() / f"{record.name}{SUFFIX}"
    draft = path.with_name(f".{record.name}.{os.getpid()}")
    draft.write_bytes(msgspec.json.encode(record))
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        raise UsageError(
            f"cannot bring up lab {record.name}: one of that name is up",
            f"Take it down with: ipttrace lab down {record.name}, or give --name.",
        ) from None
    finally:
        draft.unlink()


def replace(record: Record) -> None:
    """Write a record anew."""
    path = folder() / f"{record.name}{SUFFIX}"
    draft = path.with_name(f".{record.name}.{os.getpid()}")
    draft.write_bytes(msgspec.json.encode(record))
    draft.replace(path)


def kept_by(record: Record, keeper: ProcessMark) -> Record:
    """Write which process keeps a lab; return the new record."""
    record = msgspec.structs.replace(record, keeper=keeper)
    replace(record)
    return record


def staying(record: Record) -> Record:
    """Write that a lab stays up without its owner; return the new record."""
    record = msgspec.structs.replace(record, owner=None)
    replace(record)
    return record


def remove(name: str) -> None:
    """Forget a lab."""
    (folder() / f"{name}{SUFFIX}").unlink(missing_ok=True)


def records() -> list[Record]:
    """Return all labs that are up, oldest first."""
    found = [record for _, record in _read() if record is not None]
    return sorted(found, key=lambda record: record.made)


def find(name: str) -> Record:
    """Return the lab of that name that stays up; raises UsageError with the names there are."""
    staying = [record for record in records() if record.stays]
    for record in staying:
        if record.name == name:
            return record
    known = ", ".join(record.name for record in staying) or "none"
    raise UsageError(f"no lab {name!r} is up", f"Up are: {known}.")


def take_down(record: Record) -> list[str]:
    """End a lab's keeper and remove all that is left of it; return warnings."""
    warnings = [] if record.user_namespace else _still_inside(record)
    if record.keeper is not None and not record.keeper.end(DOWN_TIMEOUT):
        warnings.append(f"the keeper of lab {record.name} (pid {record.keeper.pid}) does not end")
    if not record.user_namespace:
        for name in record.namespaces.values():
            delete_namespace(name)
    remove(record.name)
    return warnings


def _still_inside(record: Record) -> list[str]:
    """Return a line for each process that works in a namespace of the lab: it goes with it only."""
    files = {path.stat().st_ino: path.name for path in _files(record) if path.exists()}
    lines = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            inode = (entry / "ns/net").stat().st_ino if entry.name.isdecimal() else 0
            if inode in files:
                name = clean_text((entry / "comm").read_text(errors="replace").strip())
                lines.append(
                    f"{name} (pid {entry.name}) still runs in {files[inode]}: the namespace has no "
                    "name any more, and goes when that ends"
                )
    return lines


def _files(record: Record) -> list[Path]:
    return [NAMED / name for name in record.namespaces.values()]


def sweep() -> list[str]:
    """Remove the labs of dead processes; return a line for each."""
    removed = []
    for path, record in _read():
        if record is None:
            if time.time() - path.stat().st_mtime > HALF_WRITTEN:
                path.unlink(missing_ok=True)
        elif record.is_left:
            take_down(record)
            removed.append(f"lab {clean_text(record.title)}, whose process was killed")
    return removed


def owner() -> ProcessMark:
    """Return the mark of this process."""
    return mark_of(os.getpid())


def _read() -> Iterator[tuple[Path, Record | None]]:
    for path in sorted(folder().glob(f"*{SUFFIX}")):
        with suppress(FileNotFoundError):
            try:
                yield path, msgspec.json.decode(path.read_bytes(), type=Record)
            except msgspec.MsgspecError:
                yield path, None
