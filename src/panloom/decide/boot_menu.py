"""The menu on the console of a machine that nobody named: which image its disk is to be a clone of.

    Rule, images ──menu_of──▶ Menu ──boot_answer.menu_script──▶ the console
            Rule ◀──chosen── LABEL ◀── GET /boot/TOKEN/install?choice=LABEL ──┘

    1  web   web@3, 2 GiB      by itself after 30 s
    2  db    db@1, 1 GiB
    0  .spare                  no server

Who presses a key stops the clock: iPXE then waits for whoever did.  The choice is shown with a new token, since the old
one may be over by then.
"""

from collections.abc import Iterable

import msgspec

from panloom.decide.plan import newest
from panloom.model.resources import Image, Prompt, Rule

SPARE = ".spare"
"""The label of becoming no server: no image has such a name."""
_MAX_KEYS = 9


class Item(msgspec.Struct, frozen=True):
    """A line of the menu: what it stands for, the key that chooses it (empty: only the arrows), what it reads."""

    label: str
    key: str
    text: str


class Menu(msgspec.Struct, frozen=True):
    """What is asked; the first item is taken when nobody presses a key for ``timeout_seconds``."""

    title: str
    items: tuple[Item, ...]
    timeout_seconds: float

    def offers(self, label: str) -> bool:
        """Whether that is one of its items."""
        return any(item.label == label for item in self.items)


def menu_of(rule: Rule, images: Iterable[Image]) -> Menu:
    """Return the menu of a machine that fits a rule with ``approve: prompt``."""
    known = tuple(images)
    offered: list[tuple[str, str]] = []
    if rule.server is not None:
        wanted = rule.prompt.images if rule.prompt and rule.prompt.images else [image.name for image in known]
        labels = dict.fromkeys((rule.server.image, *wanted))
        offered = [(image, _described(rule, image, known)) for image in labels]
    items = [Item(label, str(n) if n <= _MAX_KEYS else "", text) for n, (label, text) in enumerate(offered, 1)]
    spare = Item(SPARE, "0", "no server: a spare")
    becomes = f"a server of {rule.server.pan}, its disk a clone of" if rule.server else "part of the pool"
    prompt = rule.prompt or Prompt()
    return Menu(f"Panloom: this machine becomes {becomes}", (*items, spare), prompt.timeout_seconds)


def may_choose(rule: Rule, label: str) -> bool:
    """Whether a rule lets its machines choose that, be there such an image by now or not."""
    if rule.server is None or label in ("", SPARE):
        return label == SPARE
    named = rule.prompt.images if rule.prompt else ()
    return not named or label in (rule.server.image, *named)


def chosen(rule: Rule, label: str) -> Rule | None:
    """Return the rule with what was chosen at the menu, None for a spare."""
    if label == SPARE or rule.server is None:
        return None
    if label == rule.server.image:
        return rule
    disk = rule.server.disk.model_copy(update={"snapshot": None})
    return rule.model_copy(update={"server": rule.server.model_copy(update={"image": label, "disk": disk})})


def _described(rule: Rule, image: str, known: tuple[Image, ...]) -> str:
    if rule.server is not None and rule.server.disk.snapshot and image == rule.server.image:
        return f"snapshot {rule.server.disk.snapshot}"
    return newest(image, known) or f"{image}, which is not there yet"
