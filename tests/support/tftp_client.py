"""A TFTP client by RFC 1350 and RFC 7440, without sockets or clock: keeps each block once, in order.

good way    DATA … DATA ──▶ ACK of the last block of the window, or of the file
a gap       DATA n+2    ──▶ ACK n, once for all that follows out of order
seen before DATA n      ──▶ ACK of the newest block, from a client that is ``talkative`` (EDK II is), knows no windows
                            (RFC 1350 section 2) or is done; otherwise nothing
"""

from panloom.wire import tftp
from panloom.wire.tftp import Ack, Data, Error, OptionAck, Request


class TftpClient:
    """One transfer, from the options that ``request`` asks for."""

    def __init__(self, options: dict[str, str] | None = None, *, talkative: bool = True) -> None:
        self.asked = dict(options or {})
        self.options: dict[str, str] = {}
        self.content = bytearray()
        self.blocks = 0
        self.done = False
        self.error: Error | None = None
        self._talkative = talkative
        self._started = False
        self._gap_told = False
        self._acknowledged = 0

    @property
    def blksize(self) -> int:
        """As the server accepted it."""
        return int(self.options.get("blksize", 512))

    @property
    def windowsize(self) -> int:
        """As the server accepted it."""
        return int(self.options.get("windowsize", 1))

    def request(self, name: str) -> bytes:
        """Return the read request."""
        return tftp.encode(Request(name, "octet", self.asked))

    def ack(self) -> bytes:
        """Acknowledge what is there; also what a client sends after a silence."""
        self._acknowledged = self.blocks
        return tftp.encode(Ack(self.blocks & 0xFFFF))

    @property
    def started(self) -> bool:
        """Whether the server has answered."""
        return self._started

    def receive(self, octets: bytes) -> bytes | None:
        """Take in a packet, return the answer."""
        match tftp.decode(octets):
            case OptionAck(options):
                if self._started:
                    return self.ack() if self.blocks == 0 else None
                self.options = dict(options)
                self._started = True
                return self.ack()
            case Data(block, payload) if block == (self.blocks + 1) & 0xFFFF:
                self._started = True
                assert not self.done
                return self._keep(payload)
            case Data(block, _):
                behind = (self.blocks - block) & 0xFFFF
                if behind < 32768:
                    return self.ack() if self._talkative or self.done or self.windowsize == 1 else None
                told, self._gap_told = self._gap_told, True
                return self.ack() if self._talkative or not told else None
            case Error() as error:
                self.error = error
                return None
            case other:
                raise AssertionError(other)

    def _keep(self, payload: bytes) -> bytes | None:
        self.content += payload
        self.blocks += 1
        self._gap_told = False
        self.done = len(payload) < self.blksize
        return self.ack() if self.done or self.blocks - self._acknowledged >= self.windowsize else None
