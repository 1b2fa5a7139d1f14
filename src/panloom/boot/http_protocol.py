"""uvicorn's HTTP/1.1 towards peers that may send anything.

What is no HTTP may come in the middle of a body, while an answer is being made or sent.  uvicorn would then send its
400 into the answer, and log a traceback that a peer can cause as often as it likes.
"""

from uvicorn.protocols.http.h11_impl import H11Protocol


class HttpProtocol(H11Protocol):
    """One connection; what is no HTTP ends it with one answer at most."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what came, unless an answer has begun; whoever is making one finds nobody there."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.abort()
                return
        super().send_400_response(msg)
