"""What this machine has, and what it lacks, to be a control node or to run the demo or the tests.

    check.py       one finding: needed for what, how it is, why it matters
    packages.txt   the Debian packages of each purpose, and what proves that they are there; scripts/setup reads it too
    packages.py    is it there?
    host.py        kernel, Python, clock
    service.py     the processes, their sockets, the directory of the disks

Nothing is changed: what must be tried is tried in a namespace, or in a file without a name.
"""
