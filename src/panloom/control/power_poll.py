"""Asks for every node's power again and again, each node in a task of its own, so that none waits for another's driver.

    use(nodes)  ──▶ a task each:  ask(node) ──▶ … pause ──▶ ask(node) ──▶ …
                                      └─ no answer within PATIENCE_SECONDS: unanswered(node), and still waiting

A supervisor tells of changes by itself and answers at no cost, so it is asked every ``POLL_SECONDS``; each question to
a driver that runs a program is a process here, and often a session with a slow management controller.
At most ``MAX_CALLS`` questions at once go to what answers for several nodes, a supervisor or a program; a management
controller answers for its own node only.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from panloom.model.resources import IpmiPower, Node, SocketPower

POLL_SECONDS = 2.0
PROGRAM_POLL_SECONDS = 10.0
PATIENCE_SECONDS = 2.0
MAX_CALLS = 32  # a supervisor's queue of callers is not endless


class PowerPoll:
    """Keeps asking; ``ask`` returns when a node's driver has answered or failed, and raises nothing."""

    def __init__(self, ask: Callable[[Node], Awaitable[object]], unanswered: Callable[[Node], None]) -> None:
        self._ask = ask
        self._unanswered = unanswered
        self._nodes: dict[str, Node] = {}
        self._changed = asyncio.Event()
        self._calls: defaultdict[str, asyncio.Semaphore] = defaultdict(partial(asyncio.Semaphore, MAX_CALLS))

    def use(self, nodes: Iterable[Node]) -> None:
        """Ask for these nodes from now on, at once for those that are new or changed."""
        self._nodes = {node.name: node for node in nodes if node.power is not None}
        self._changed.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        asked: dict[str, tuple[Node, asyncio.Task[None]]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                for name, (node, task) in list(asked.items()):
                    if self._nodes.get(name) != node:
                        task.cancel()
                        del asked[name]
                for name, node in self._nodes.items():
                    if name not in asked:
                        asked[name] = node, group.create_task(self._keep_asking(node), name=f"power of {name}")
                await self._changed.wait()

    async def _keep_asking(self, node: Node) -> None:
        loop = asyncio.get_running_loop()
        while True:
            impatience = loop.call_later(PATIENCE_SECONDS, self._unanswered, node)
            try:
                async with self._calls[_answerer(node)]:
                    await self._ask(node)
            finally:
                impatience.cancel()
            is_socket = isinstance(node.power, SocketPower)
            await asyncio.sleep(POLL_SECONDS if is_socket else PROGRAM_POLL_SECONDS)


def _answerer(node: Node) -> str:
    """Return what the question goes to."""
    power = node.power
    return node.name if power is None or isinstance(power, IpmiPower) else f"{power.driver} {power.path}"
