"""The command line: one module per sub-command, imported when it is used.

    main.py        ``panloom``: global options, the table of sub-commands, exit codes
    columns.py     which columns each kind has
    output.py      data to stdout, talk to stderr, colours only on a terminal

It speaks to the control process only (``control/client.py``); nothing here opens the store.
"""

from panloom.command.main import main

__all__ = ["main"]
