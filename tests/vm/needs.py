"""What the emulated machine needs: Debian packages, virtme-ng, and the kernel of Debian 12."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ipttrace-vm"
VIRTME = "virtme-ng==1.42"
PACKAGES = ("qemu-system-x86", "busybox-static", "kmod")
"""kmod: the kernel of the machine asks for its modules by /sbin/modprobe."""

KERNEL = "linux-image-6.1."


def say(text: str) -> None:
    """Tell what is being done."""
    print(f"vm-test: {text}", file=sys.stderr, flush=True)


def run(*command: str | Path, cwd: Path = CHECKOUT, **more: object) -> str:
    """Run a command; return what it printed.  CalledProcessError if it failed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        **more,  # type: ignore[call-overload]
    )
    return str(done.stdout)


def prepare() -> Path:
    """Install what is missing; return Debian's kernel."""
    run("scripts/setup")
    missing = [name for name in PACKAGES if not _is_installed(name)]
    if missing:
        say(f"installing {' '.join(missing)}")
        run("apt-get", "update", "-qq")
        run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing)
    if not (CACHE / "venv/bin/vng").exists():
        say(f"installing {VIRTME} into {CACHE}")
        run(sys.executable, "-m", "venv", "--clear", CACHE / "venv")
        run(CACHE / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", VIRTME)
    return _kernels()[-1] if _kernels() else _download_kernel()


def _is_installed(package: str) -> bool:
    asked = ["dpkg-query", "-W", "-f", "${db:Status-Status}", package]
    return subprocess.run(asked, check=False, capture_output=True).stdout == b"installed"


def _kernels() -> list[Path]:
    """Return the kernels that are unpacked completely."""
    images = sorted((CACHE / "kernel/boot").glob("vmlinuz-6.1.*"))
    return [each for each in images if (modules(each) / "modules.dep").exists()]


def modules(kernel: Path) -> Path:
    """Return the folder of the modules of `kernel`."""
    return CACHE / "kernel/lib/modules" / kernel.name.removeprefix("vmlinuz-")


def _download_kernel() -> Path:
    """Unpack the kernel package; it is not installed, so this machine will not boot it."""
    words = run("apt-cache", "depends", "linux-image-amd64").split()
    package = next((word for word in words if word.startswith(KERNEL)), None)
    if package is None:
        raise OSError(f"cannot get a kernel: no {KERNEL}* in the package sources of this machine")
    say(f"downloading {package}")
    run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package, cwd=CACHE)
    (archive,) = CACHE.glob(f"{package}_*.deb")
    run("dpkg", "-x", archive, CACHE / "kernel")
    archive.unlink()
    kernel = CACHE / "kernel/boot" / package.replace("linux-image", "vmlinuz")
    run("depmod", "-b", CACHE / "kernel", modules(kernel).name)
    return kernel
