"""Campaigns: what must hold after any crash, whatever fails, and would be noticed if it did not.

states.py     recovery runs on a hundred thousand states that a kill or a power cut may leave
mutants.py    every place that makes something durable is taken out, one at a time: does a scene or a story go wrong?
survivors.py  why nothing can go wrong, where nothing does
faults.py     every call on a file fails, one at a time: nothing false is answered, and all others are served
kills.py      kill -9 of the storage process under load, a thousand times: what was answered is there
histories.py  several initiators at one unit, and kills: is there an order that explains each answer?
planted.py    bugs that have lost data elsewhere are planted: does a test find each?
tally.py      how far a campaign has come: kept in .cache/campaign, so that it goes on where it was stopped
__main__.py   make campaign
"""
