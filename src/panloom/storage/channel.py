"""The control channel's server: one task for each client, calls in threads, events to whoever watches.

Who may connect: root, or the user that the process runs as (SO_PEERCRED).  The messages are in ``calls``.
"""

import asyncio
import logging
import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from panloom.errors import ConfigError, ConflictError, PanloomError
from panloom.storage import calls
from panloom.storage.connection_manager import ConnectionManager
from panloom.storage.exports import Export
from panloom.storage.flattening import Flattening
from panloom.storage.volume_store import VolumeStore

EVENTS_KEPT = 10_000  # a watcher that is further behind is disconnected, and starts again from the status

_LOGGED_ELSEWHERE = ("login", "refused", "logout")  # by the Remote Transport, which knows more of them
_INTERNAL = calls.Error("unavailable", "a fault of the storage process; see its log")
_UCRED = struct.Struct("iII")  # pid, uid, gid (unix(7))

log = logging.getLogger(__name__)


class Events:
    """Hands events from any thread to the watchers of one event loop, and to the log."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watchers: set[asyncio.Queue[calls.Event | None]] = set()

    def report(self, event: calls.Event) -> None:
        """Log an event and pass it on; never blocks."""
        if event.event not in _LOGGED_ELSEWHERE:
            log.info("event=%s session=%s target=%s why=%r", event.event, event.session, event.target, event.why)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._publish, event)

    def subscribe(self) -> "asyncio.Queue[calls.Event | None]":
        """Return a queue that gets every event from now on; None ends it."""
        queue: asyncio.Queue[calls.Event | None] = asyncio.Queue()
        self._watchers.add(queue)
        return queue

    def unsubscribe(self, queue: "asyncio.Queue[calls.Event | None]") -> None:
        """Forget a queue."""
        self._watchers.discard(queue)

    def _publish(self, event: calls.Event) -> None:
        for queue in tuple(self._watchers):
            if queue.qsize() < EVENTS_KEPT:
                queue.put_nowait(event)
            else:
                self._watchers.discard(queue)
                queue.put_nowait(None)


class Channel:
    """Serves the calls on a Unix socket."""

    def __init__(self, store: VolumeStore, manager: ConnectionManager, flattening: Flattening, events: Events) -> None:
        self._store = store
        self._manager = manager
        self._flattening = flattening
        self._events = events
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        # Drains and imports take long; a fence must find a free thread all the same.
        self._threads = ThreadPoolExecutor(64, thread_name_prefix="call")

    async def start(self, path: Path) -> None:
        """Listen; ConfigError if the socket cannot be made there."""
        listener = _listen(path)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=calls.MAX_LINE_OCTETS)

    async def stop(self) -> None:
        """Stop listening and end all clients; calls that are being executed come to their end unanswered."""
        if self._server:
            self._server.close()
        for client in tuple(self._clients):
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            self._clients.add(task)
            task.add_done_callback(self._clients.discard)
        answers: set[asyncio.Task[None]] = set()
        try:
            if not _may_connect(writer):
                return
            while line := await reader.readline():
                answer = asyncio.create_task(self._answer(line, writer))
                answers.add(answer)
                answer.add_done_callback(answers.discard)
        except ValueError:  # StreamReader's word for a line beyond the limit
            _send(writer, calls.Failed(None, calls.Error("config", "the line is too long")))
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the process ends
        finally:
            for answer in answers:
                answer.cancel()
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            call = _CALL_DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            _send(writer, calls.Failed(_id_of(line), calls.Error("config", f"no call: {error}")))
            return
        if isinstance(call, calls.Watch):
            await self._watch(call, writer)
            return
        loop = asyncio.get_running_loop()
        try:
            result = await loop.run_in_executor(self._threads, self._do, call)
        except (PanloomError, OSError) as error:
            log.info("call=%s refused=%r", type(call).__name__, str(error))
            _send(writer, calls.Failed(call.id, _error(error)))
        except Exception:  # the guard of this call: the other calls and clients go on
            log.exception("call=%s", type(call).__name__)
            _send(writer, calls.Failed(call.id, _INTERNAL))
        else:
            _send(writer, calls.Done(call.id, msgspec.Raw(msgspec.json.encode(result))))

    async def _watch(self, call: calls.Watch, writer: asyncio.StreamWriter) -> None:
        queue = self._events.subscribe()
        try:
            _send(writer, calls.Done(call.id, msgspec.Raw(b"null")))
            while event := await queue.get():
                _send(writer, event)
                await writer.drain()
        except ConnectionError:
            pass  # the client has gone
        finally:
            self._events.unsubscribe(queue)
            writer.close()

    def _do(self, call: calls.AnyCall) -> object:
        manager, store = self._manager, self._store
        match call:
            case calls.ImportImage():
                return store.import_image(call.name, Path(call.source))
            case calls.DeleteImage():
                store.delete_image(call.name)
            case calls.CreateVolume():
                return _created(store, call)
            case calls.TakeSnapshot():
                return store.snapshot(call.name)
            case calls.ListVolumes():
                return manager.with_limits(store.facts())
            case calls.Drop():
                return manager.drop(call.target)
            case calls.Drain():
                return manager.drain(call.target)
            case calls.GetStatus():
                return manager.status()
            case calls.ListPlatforms():
                return manager.platforms.facts(scan=call.scan)
            case calls.GetStatistics():
                return manager.statistics()
            case calls.ReopenVolume():
                manager.reopen_volume(call.name)
            case calls.DeleteVolume():
                manager.delete_volume(call.name)
            case calls.LimitVolume():
                manager.limit_volume(call.name, call.limits)
            case calls.GrowVolume():
                manager.grow_volume(call.name, call.octets)
            case calls.DeleteSnapshot():
                store.delete_snapshot(call.name)
                self._flattening.tidy()
            case calls.FlattenVolume():
                self._flattening.begin(call.name)
            case calls.ExportTarget():
                manager.export(Export(call.target, call.epoch, call.luns, call.access, call.moved))
            case calls.Revoke():
                manager.revoke(call.target, call.epoch)
            case calls.Unexport():
                manager.unexport(call.target, call.epoch)
        return None


def _created(store: VolumeStore, call: calls.CreateVolume) -> calls.Created:
    made = store.create(
        call.name,
        call.image,
        call.size_octets,
        image_sha256=call.image_sha256,
        snapshot=call.snapshot,
        thick=call.thick,
    )
    return calls.Created(*made)


class _Numbered(msgspec.Struct):
    id: int | None = None


_CALL_DECODER = msgspec.json.Decoder(calls.AnyCall)


def _id_of(line: bytes) -> int | None:
    try:
        return msgspec.json.decode(line, type=_Numbered).id
    except (ValueError, RecursionError):
        return None


def _send(writer: asyncio.StreamWriter, message: msgspec.Struct) -> None:
    if not writer.is_closing():
        writer.write(msgspec.json.encode(message) + b"\n")


def _error(error: PanloomError | OSError) -> calls.Error:
    match error:
        case ConfigError():
            return calls.Error("config", error.why, error.where)
        case ConflictError():
            return calls.Error("conflict", str(error))
        case OSError():
            return calls.Error("unavailable", f"the disk of the storage process: {error.strerror}")
        case _:
            return calls.Error("unavailable", str(error))


def _may_connect(writer: asyncio.StreamWriter) -> bool:
    peer: socket.socket = writer.get_extra_info("socket")
    pid, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid in (0, os.geteuid()):
        return True
    log.info("channel=refused pid=%d uid=%d", pid, uid)
    return False


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    umask = os.umask(0o177)  # the socket is never there with another mode than 0600
    try:
        if path.is_socket():  # of a process that was killed: the store's lock says that there is no other
            path.unlink()
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise ConfigError(str(path), f"cannot listen there: {error.strerror or error}") from error
    finally:
        os.umask(umask)
    listener.setblocking(False)
    return listener
