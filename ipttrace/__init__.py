"""Show the way one real packet takes through the Linux kernel's netfilter hooks."""

__version__ = "0.1.0"
