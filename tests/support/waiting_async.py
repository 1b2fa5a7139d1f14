"""Wait in a loop for a fact, with a deadline; never for a while."""

import asyncio


async def eventually(fact, what, *, seconds=10.0):
    """Return the first true value of ``fact()``; AssertionError naming ``what`` after ``seconds``."""
    end = asyncio.get_running_loop().time() + seconds
    while not (value := fact()):
        if asyncio.get_running_loop().time() > end:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.01)
    return value
