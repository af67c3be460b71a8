"""The only code that touches cgroupfs, procfs and system calls."""
