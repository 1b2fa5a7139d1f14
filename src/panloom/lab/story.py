"""What the demonstration shows while it runs, and the table it ends with.

     ✓    2.4 s  build the image      128 MiB, Linux 6.1.0, busybox        a step that is done: a line that stays
     ⠋    4.2 s  shop/web1 boots      its page within 60 s; n1: login     the step under way, on a terminal only

Anywhere else than on a terminal a step that takes long says every ten seconds what it waits for.
"""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

_REMIND_SECONDS = 10.0
_STEP_COLUMNS = 19


class Story:
    """The steps of one demonstration, told as they happen."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.began = time.monotonic()
        self._step = ""
        self._waiting = ""
        self._since = self.began
        self._told = self.began
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

    def begin(self, step: str, *, since: float | None = None) -> None:
        """Name the step that begins now, or began at ``since`` in monotonic seconds."""
        self._step = step
        self._waiting = ""
        self._told = time.monotonic()
        self._since = self._told if since is None else since

    def wait(self, what: str) -> None:
        """Say what the step is waiting for."""
        self._waiting = what
        now = time.monotonic()
        if not self.console.is_terminal and now - self._told >= _REMIND_SECONDS:
            self._told = now
            self._print("…", now - self._since, f"waiting: {what}")

    def done(self, result: str) -> None:
        """End the step with what came of it."""
        self._print("✓", time.monotonic() - self._since, result)
        self._step = ""

    @property
    def step(self) -> str:
        """The step under way and what it waits for."""
        return f"{self._step}: {self._waiting}" if self._waiting else self._step

    def _print(self, mark: str, seconds: float, text: str) -> None:
        if self.console.is_terminal:
            self.console.print(_row(Text(mark, "green"), seconds, self._step, Text(text)))
        else:
            self.console.print(
                f" {mark}  {seconds:5.1f} s  {self._step:<{_STEP_COLUMNS}}  {text}", markup=False, soft_wrap=True
            )

    def _draw(self) -> RenderableType:
        if not self._step:
            return Text("")
        return _row(self._spinner, time.monotonic() - self._since, self._step, Text(self._waiting, "cyan"))


def _row(mark: RenderableType, seconds: float, step: str, text: Text) -> Table:
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=2, justify="right")
    row.add_column(width=7, justify="right", no_wrap=True)
    row.add_column(width=_STEP_COLUMNS, no_wrap=True)
    row.add_column()
    row.add_row(mark, f"{seconds:.1f} s", Text(step, "bold"), text)
    return row


def table(title: str, *columns: str) -> Table:
    """Return an empty table in the house's look: one measure a row, its seconds to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 3, 0, 1), title_justify="left")
    made.add_column(title, no_wrap=True, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right", no_wrap=True, header_style="bold")
    return made
