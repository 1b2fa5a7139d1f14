"""An emulated machine's virtual LANs over the fabrics: what answers its beacons says how they are to be.

beacon ─▶ control node ─▶ LanNews ─▶ addresses of fa and fb ─▶ LanAgent ─▶ addresses of the server's NICs
"""

import asyncio
import socket
from collections.abc import Callable, Mapping

import msgspec

from panloom.decide.lan_news import LONGEST, LanNews
from panloom.errors import KernelError
from panloom.lab.board import Board
from panloom.node.lan_agent import LanAgent

_AGAIN_SECONDS = 1.0


async def keep_lans(
    board: Board, mouth: socket.socket, settings: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """Hold the OS's kernel to what comes to ``mouth``, from which beacons go, until cancelled."""
    agent = LanAgent(
        board.os_namespace,
        server=f"{settings['PAN']}/{settings['SERVER']}",
        epoch=int(settings["EPOCH"]),
        key=settings["BEACON_KEY"],
    )
    held: LanNews | None = None
    while True:
        try:
            octets = await asyncio.get_running_loop().sock_recv(mouth, LONGEST)
        except OSError:  # nobody listens at the control node just now
            await asyncio.sleep(_AGAIN_SECONDS)
            continue
        news = agent.hear(octets)
        if news is None:
            continue
        try:
            is_new = held is None or msgspec.structs.replace(news, counter=held.counter) != held
            if is_new:
                for name, address in news.fabrics:
                    await board.give_os_address(name, address, None)
            made = await asyncio.to_thread(agent.hold, news)
            if is_new or made:
                for nic in news.nics:
                    if nic.address is not None:
                        await board.give_os_address(nic.device, nic.address, nic.router)
                say(f"PANLOOM lans={len(news.nics)} changes={made}")
        except KernelError as error:
            say(f"PANLOOM lans={error}")
            continue
        held = news
