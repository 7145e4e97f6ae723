"""Everything that touches the kernel; the only impure package."""
