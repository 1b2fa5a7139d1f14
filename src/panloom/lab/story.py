"""What the demonstration shows while it runs, and the table it ends with.

On a terminal the steps are one live table with the running wait in it; anywhere else each step is a line when it is
done.
"""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text


class Story:
    """The steps of one demonstration, told as they happen."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = time.monotonic()
        self._done: list[tuple[float, str, str]] = []
        self._step = ""
        self._waiting = ""
        self._since = self.began
        self._spinner = Spinner("dots")
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def begin(self, step: str) -> None:
        """Name the step that begins now."""
        self._step = step
        self._waiting = ""
        self._since = time.monotonic()

    def wait(self, what: str) -> None:
        """Say what the step is waiting for."""
        if what != self._waiting:
            self._waiting = what

    def done(self, result: str) -> None:
        """End the step with what came of it."""
        seconds = time.monotonic() - self._since
        self._done.append((seconds, self._step, result))
        line = Text.assemble((" ✓ ", "green"), f"{seconds:5.1f} s  ", (f"{self._step:<34}", "bold"), result)
        self.console.print(line, soft_wrap=not self.console.is_terminal)
        self._step = ""

    @property
    def step(self) -> str:
        """The step under way and what it waits for."""
        return f"{self._step}: {self._waiting}" if self._waiting else self._step

    def _draw(self) -> RenderableType:
        if not self._step:
            return Text("")
        seconds = time.monotonic() - self._since
        self._spinner.update(
            text=Text.assemble(
                f"{seconds:5.1f} s  ", (f"{self._step:<34}", "bold"), (self._waiting, "cyan"), overflow="ellipsis"
            )
        )
        return Group(self._spinner)


def table(title: str, *columns: str) -> Table:
    """Return an empty table in the house's look."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for number, column in enumerate(columns):
        made.add_column(column, justify="left", no_wrap=number == 0)
    return made
