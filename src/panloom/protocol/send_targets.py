"""What a target says to the keys of a Text Request in full feature phase: SendTargets (RFC 7143 appendix C), no other.

SendTargets=All      in discovery only: every target that the initiator may see
SendTargets=         in a normal session only: the session's own
SendTargets=NAME     in both: that one, nothing if there is none
"""

from collections.abc import Mapping, Sequence

from panloom.protocol.iscsi_keys import NEGOTIATED


def answers(keys: Mapping[str, str], targets: Sequence[tuple[str, str]], *, discovery: bool) -> list[tuple[str, str]]:
    """Return the keys to answer with; ``targets`` are (name, portal) pairs, those of one name side by side."""
    told: list[tuple[str, str]] = []
    for key, value in keys.items():
        if key in NEGOTIATED:
            told.append((key, "Reject"))  # section 13: at the login only
        elif key != "SendTargets":
            told.append((key, "NotUnderstood"))
        elif (value == "All") != discovery and value in ("All", ""):
            told.append((key, "Reject"))
        else:
            told += _tell(value, targets)
    return told


def _tell(value: str, targets: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    told: list[tuple[str, str]] = []
    named = ""
    for name, portal in targets:
        if value in ("All", "", name):
            told += [("TargetName", name)] if name != named else []
            told.append(("TargetAddress", portal))
            named = name
    return told
