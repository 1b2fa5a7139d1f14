"""The sequence numbers that a target keeps for a session of one connection (RFC 7143 section 4.2.2).

Plain Python that the block hot path reads and writes for every command, so it is compiled with that, where it can be.
"""

_MASK = 0xFFFFFFFF


class SequenceNumbers:
    """``exp_cmd_sn`` is that of the command whose turn it is, ``stat_sn`` our next answer's; both wrap at 2^32."""

    __slots__ = ("exp_cmd_sn", "stat_sn")

    def __init__(self, exp_cmd_sn: int, stat_sn: int) -> None:
        self.exp_cmd_sn = exp_cmd_sn
        self.stat_sn = stat_sn

    def take_command(self) -> None:
        """Count the command whose turn it is as received."""
        self.exp_cmd_sn = self.exp_cmd_sn + 1 & _MASK

    def take_status(self) -> int:
        """Return the StatSN of an answer, and use it up."""
        stat_sn = self.stat_sn
        self.stat_sn = stat_sn + 1 & _MASK
        return stat_sn

    def give_back(self, answers: int) -> None:
        """Have so many StatSN again, the last ones taken, whose answers have not been sent."""
        self.stat_sn = self.stat_sn - answers & _MASK
