"""Which parts of the kernel are there, found without loading any.

The sources, in order of trust: what is registered now, the kernel's own configuration, the lists
of depmod(8), and a dry run of modprobe(8).
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ipttrace.checkup.facts import Presence, Unknown
from ipttrace.errors import IptTraceError
from ipttrace.system import commands
from ipttrace.system.reading import text_of

OPTIONS = {
    "nf_tables": ("NF_TABLES",),
    "xt_TRACE": ("NETFILTER_XT_TARGET_TRACE",),
    "nfnetlink_log": ("NETFILTER_NETLINK_LOG",),
    "nf_log_syslog": ("NF_LOG_SYSLOG", "NF_LOG_IPV4"),
    "xt_bpf": ("NETFILTER_XT_MATCH_BPF",),
    "act_mirred": ("NET_ACT_MIRRED",),
    "sch_ingress": ("NET_SCH_INGRESS",),
    "tun": ("TUN",),
}
"""Module to configuration options; NF_LOG_SYSLOG was NF_LOG_IPV4 before Linux 5.13."""

LOADED = Path("/proc/modules")
"""Absent in a kernel that cannot load modules."""

REGISTERED = Path("/sys/module")
LIBRARY = Path("/lib/modules")
CONFIG = Path("/proc/config.gz")
BOOT = Path("/boot")
MODULES_DISABLED = Path("/proc/sys/kernel/modules_disabled")
EVIDENCE = {
    "nfnetlink_log": (Path("/proc/net/netfilter/nf_log"), "nfnetlink_log"),
    "nf_log_syslog": (Path("/proc/net/netfilter/nf_log"), "nf_log_ipv4"),
    "tun": (Path("/proc/misc"), " tun\n"),
}
"""Files in which a part shows once it is there."""

NEVER = re.compile(r"^install .*/(?:false|true)\b", re.MULTILINE)
"""What a dry run says of a module that an `install` line of modprobe.d(5) switches off."""


def read_parts(release: str) -> dict[str, Presence | Unknown]:
    """Return where each part of the running kernel `release` is."""
    loaded = _shown(LOADED)
    config = _config(release)
    builtin = _builtin(release)
    parts: dict[str, Presence | Unknown] = {}
    for name in OPTIONS:
        present = _present(name, loaded or "", config, builtin)
        parts[name] = present or _elsewhere(name, release, config, modules=LOADED.exists())
    return parts


def _shown(path: Path) -> str | None:
    """Return what a file says, None if it is absent or closed."""
    try:
        return text_of(path)
    except OSError:
        return None


def _present(
    name: str, loaded: str, config: Mapping[str, str] | None, builtin: frozenset[str]
) -> Presence | None:
    if re.search(rf"^{name} ", loaded, re.MULTILINE):
        return Presence.LOADED
    seen = (REGISTERED / name).exists() or name in builtin or _shows(name)
    configured = config is not None and any(config.get(o) == "y" for o in OPTIONS[name])
    return Presence.BUILT_IN if seen or configured else None


def _shows(name: str) -> bool:
    if name not in EVIDENCE:
        return False
    path, word = EVIDENCE[name]
    return word in (_shown(path) or "")


def _elsewhere(
    name: str, release: str, config: Mapping[str, str] | None, *, modules: bool
) -> Presence | Unknown:
    """Return where a part is that is not in the kernel now."""
    if config is not None and not any(option in config for option in OPTIONS[name]):
        return Presence.ABSENT
    if not modules:
        return Unknown("this kernel loads no modules and does not show its configuration")
    if (_shown(MODULES_DISABLED) or "0").strip() == "1":
        return Presence.BLOCKED
    if not (LIBRARY / release).is_dir():
        return Unknown(f"it is not loaded, and {LIBRARY / release} is not here")
    return _dry_run(name)


def _dry_run(name: str) -> Presence | Unknown:
    try:
        finished = commands.start(
            ["modprobe", "-n", "-v", name], what=f"cannot find {name}"
        ).finish()
    except IptTraceError as error:
        return Unknown(error.message, error.hint)
    if finished.code != 0:
        return Presence.ABSENT
    return Presence.BLOCKED if NEVER.search(finished.output) else Presence.LOADABLE


def _config(release: str) -> dict[str, str] | None:
    """Return what the kernel was built with: option to `y` or `m`; None if it is not shown."""
    texts = (text for text in _config_texts(release) if text)
    text = next(texts, None)
    if text is None:
        return None
    wanted = "|".join(option for options in OPTIONS.values() for option in options)
    return dict(re.findall(rf"^CONFIG_({wanted})=([ym])$", text, re.MULTILINE))


def _config_texts(release: str) -> Iterator[str | None]:
    try:
        yield gzip.decompress(CONFIG.read_bytes()).decode(errors="replace")
    except (OSError, EOFError, zlib.error):
        yield None
    yield _shown(BOOT / f"config-{release}")
    yield _shown(LIBRARY / release / "config")


def _builtin(release: str) -> frozenset[str]:
    """Return the modules that depmod lists as part of the kernel, with `_` for `-`."""
    text = _shown(LIBRARY / release / "modules.builtin") or ""
    return frozenset(Path(line).stem.replace("-", "_") for line in text.splitlines())
