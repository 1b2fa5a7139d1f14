"""A whole chassis on one machine: bridge, cables, diskless QEMU machines, and what they boot."""
