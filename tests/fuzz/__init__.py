"""Fuzz targets: what must hold for any octets at all, of every codec and every state machine.

target.py     what a target is
codecs.py …   the targets, a module for each part of the product
one.py        runs one target in its own process, guided by coverage (atheris)
__main__.py   runs all of them, a slice of time each:  make fuzz SECONDS=3600
live.py       a process that serves, under a million wrong PDUs; live_pdus.py makes them
findings.py   inputs that once broke something
"""
