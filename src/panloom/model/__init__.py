"""What should exist: the documents people write, checked, and the flat resources they become.

    text ──tree──▶ positions ──documents──▶ checked models ──expand──▶ resources ──check──▶ stored under /want/…

Pure: no sockets, clocks, randomness or logging, and no file is opened here: the caller hands over names and texts.
"""
