"""Campaigns: what must hold after any crash, whatever fails, and would be noticed if it did not.

states.py     recovery runs on a hundred thousand states that a kill or a power cut may leave
mutants.py    every place that makes something durable is taken out, one at a time: does a story go wrong?
faults.py     every call on a file fails, one at a time: nothing false is answered, and all others are served
tally.py      how far a campaign has come: kept in .cache/campaign, so that it goes on where it was stopped
__main__.py   make campaign
"""
