"""What a storage process may live through: work, deaths in the midst of it, clean ends, power cuts; all from one seed.

Story(directory, seed).tell()  →  chapters, each from a start to the next power cut: contents, promise, log
Chapter.states(chance, limit)  →  every moment of it, and what a kill or a power cut leaves at each
"""

import random

import msgspec

from panloom.storage.descriptor import SessionFacts
from panloom.storage.exports import Access, Export, ExportedLun
from panloom.values import Iqn
from support.crash.chapter import NOTHING, Story
from support.crash.conversation import INITIATOR, Session
from support.crash.disk import SECTOR
from support.crash.recorder import Killed
from support.crash.volume_promise import Promise, Running, VolumePromise, sectors_of

IMAGE = random.Random(1).randbytes(21_700)  # five clusters, and a tail that is no whole block
SECTORS = {"web1": 12 * 8 + 3, "web2": 5 * 8}
OVER = {"web1": "web@1", "web2": None}
CLONE = "web3"
SNAPSHOTS = ("web1@a", "web1@b")
TARGETS = {name: f"iqn.2026-11.dev.panloom:shop.{name}" for name in (*SECTORS, CLONE)}
CHANCES = {
    "write": 60, "flush": 18, "move": 8, "forget": 4, "again": 5, "remake": 5,
    "snapshot": 6, "unsnapshot": 3, "clone": 4, "unclone": 2, "grow": 3, "flatten": 3,
}  # fmt: skip


class Refused(AssertionError):
    """A command was answered with sense data."""


class Connection:
    """Stands for the thread of a session, which here is the story's own."""

    def __init__(self):
        self.facts = SessionFacts(INITIATOR, INITIATOR, "127.0.0.1:1", bytes(6), "kernel", 0.0, 0.0)

    def resized(self, lun, blocks):
        """The story begins a new session for every command."""

    def shut_down(self):
        """Nothing to wait for."""


class VolumeStory(Story):
    """A storage process with two targets, each with one volume, snapshots of one of them and a clone."""

    def beginning(self):
        """An empty disk, and nothing promised."""
        self._source = self.directory / "source"
        self._source.write_bytes(IMAGE)
        self._fill = 0
        self._thick = self.chance.random() < 0.5  # the volume that lies over nothing
        return NOTHING, Promise()

    def live(self, root, *, durable):
        """Start, work, and end in one of three ways: cleanly, between two calls, within one."""
        self._running = None
        try:
            self._live(root, durable)
        except Killed:
            pass
        finally:
            if self._running:
                self._running.kill()

    def _live(self, root, durable):
        if self.chance.random() < 0.2:
            self.recorder.die_after(self.chance.randrange(12))
        self._running = Running(root)
        self.recorder.die_after(None)
        seen = self._running.seen()
        self.mark(lambda promise: promise.saw(seen, durable=durable))
        if self.chance.random() < 0.3:
            self.recorder.die_at_sync(self.chance.randrange(8))
        self._prepare()
        self._choose_death()
        for _ in range(self.steps):
            self._step()
        if self.chance.random() < 0.5:
            self._end_cleanly()

    def _choose_death(self):
        chosen = self.chance.random()
        if chosen < 0.4:
            self.recorder.die_after(self.chance.randrange(80))
        elif chosen < 0.7:
            self.recorder.die_at_sync(self.chance.randrange(10))

    def _prepare(self):
        if self.promise.images.get("web@1", ({False}, b""))[0] != {True}:
            self._import()
        for name in SECTORS:
            self._create(name)
            self._export(name, self._epoch(name) + 1)
        if self._is_there(CLONE):  # a process that was killed had made it, and perhaps not exported it
            self._export(CLONE, self._epoch(CLONE) + 1)

    def _epoch(self, name):
        """Return the highest epoch that anybody has heard of."""
        volume = self.promise.volumes.get(name)
        exports = self.promise.exports.get(TARGETS[name], {None})
        return max([volume.epochs.stop - 1 if volume else 0, *(export.epoch for export in exports if export)])

    # --- what may happen

    def _step(self):
        name = self.chance.choice(("web1", "web1", "web2", CLONE if self._is_there(CLONE) else "web2"))
        self._do(self.choose(), name)

    def choose(self):
        """Return what to do next."""
        return self.chance.choices([*CHANCES], [*CHANCES.values()])[0]

    def is_lost(self, name):
        """Return whether a sync of it has failed, which nobody says who lets go of it."""
        return False

    def exists(self, name):
        """Return whether there is a file of this volume."""
        return (self._running.store._directory.path / f"{name}.volume").exists()

    def _is_there(self, name):
        return name in self.promise.volumes and self.promise.volumes[name].there == {True}

    def _is_frozen(self, label):
        return self.promise.snapshots.get(label, ({False},))[0] == {True}

    def _do(self, what, name):
        match what:
            case "write":
                self._write(name)
            case "flush":
                self._flush(name)
            case "move":
                if self.chance.random() < 0.5:
                    self._revoke(name, self._epoch(name) + 1)
                self._export(name, self._epoch(name) + 1)
            case "forget":
                self._unexport(name)
                self._export(name, self._epoch(name) + self.chance.randrange(2))
            case "snapshot":
                self._snapshot(self.chance.choice(SNAPSHOTS))
            case "unsnapshot":
                self._delete_snapshot(self.chance.choice(SNAPSHOTS))
            case "clone":
                self._clone(SNAPSHOTS[0])
            case "unclone":
                if self._is_there(CLONE):
                    self._unexport(CLONE)
                    self._delete(CLONE)
            case "grow":
                self._grow(name)
            case "flatten":
                self._flatten(name)
            case "again":
                self._import()
                if name != CLONE:
                    self._create(name)
            case "remake" if name != CLONE and not (name == "web1" and any(map(self._is_frozen, SNAPSHOTS))):
                self._unexport(name)
                self._delete(name)
                self._create(name)
                self._export(name, self._epoch(name) + 1)

    def _import(self):
        self.mark(lambda promise: promise.importing("web@1", IMAGE))
        self._running.store.import_image("web@1", self._source)
        self.mark(lambda promise: promise.imported("web@1"))

    def _create(self, name):
        known = self.promise.volumes.get(name)
        gone = known is not None and known.there == {False, True} and not self.exists(name)  # its end was refused, late
        if known is None or True not in known.there or gone:
            octets = (IMAGE if OVER[name] else b"").ljust(SECTORS[name] * SECTOR, b"\0")
            new = [{sector} for sector in sectors_of(octets)]
            self.mark(lambda promise: promise.begin_again(name, new))
            sectors = SECTORS[name]
        elif len(known.sizes) > 1:
            raise Refused(f"nobody knows how large {name} is")
        else:
            (sectors,) = known.sizes
        thick = self._thick and OVER[name] is None
        self._running.store.create(name, OVER[name], sectors * SECTOR, thick=thick)
        if gone:
            self.mark(lambda promise: promise.volumes.update({name: VolumePromise(new)}))
        self.mark(lambda promise: setattr(promise.volumes[name], "there", {True}))

    def _snapshot(self, label):
        if self._running.store.open("web1").header.flattening:  # a process that was killed had begun it
            self._flatten("web1")
        self.mark(lambda promise: promise.freezing(label, "web1"))
        is_new = self._running.store.snapshot(label)
        self.mark(lambda promise: promise.frozen(label))
        if is_new:
            self.mark(lambda promise: promise.volumes["web1"].flushed())

    def _delete_snapshot(self, label):
        clone = self.promise.volumes.get(CLONE)
        if not self._is_frozen(label) or (label == SNAPSHOTS[0] and clone and clone.there != {False}):
            return
        self.mark(lambda promise: promise.forgetting(label, {False, True}))
        self._running.store.delete_snapshot(label)
        self.mark(lambda promise: promise.forgetting(label, {False}))
        if self.chance.random() < 0.7:
            self._absorb()

    def _absorb(self):
        for name, layer in self._running.store.to_absorb().items():
            volume = self._running.store.open(name)
            for start in range(0, layer.header.octets, 2 * 4096):
                volume.absorb(layer.header.id, start, start + 2 * 4096)
            self._running.store.end_absorbing(name, layer.header.id)

    def _clone(self, label):
        if not self._is_frozen(label) or self._is_there(CLONE):
            return
        sectors = self.promise.snapshots[label][1]
        self.mark(lambda promise: promise.volumes.update({CLONE: VolumePromise(sectors)}))
        self._running.store.create(CLONE, None, len(sectors) * SECTOR, snapshot=label)
        self.mark(lambda promise: setattr(promise.volumes[CLONE], "there", {True}))
        self._export(CLONE, self._epoch(CLONE) + 1)

    def _grow(self, name):
        sectors = len(self.promise.volumes[name].now) + self.chance.choice((1, 8, 13))
        self.mark(lambda promise: promise.volumes[name].growing(sectors))
        self._running.manager.grow_volume(name, sectors * SECTOR)
        self.mark(lambda promise: promise.volumes[name].grown(sectors))

    def _flatten(self, name):
        volume = self._running.store.open(name)
        volume.begin_flattening()
        for start in range(0, volume.to_pull, 2 * 4096):
            volume.pull(start, start + 2 * 4096)
        self._running.store.end_flattening(name)

    def _delete(self, name):
        self.mark(lambda promise: setattr(promise.volumes[name], "there", {False, True}))
        self._running.manager.delete_volume(name)
        self.mark(lambda promise: setattr(promise.volumes[name], "there", {False}))

    def _export(self, name, epoch):
        access = Access(INITIATOR.name)
        self._exporting(
            name, Export(TARGETS[name], max(epoch, 1), (ExportedLun(0, volume=name),), access),
            lambda export: self._running.manager.export(export),
        )  # fmt: skip

    def _revoke(self, name, epoch):
        known = self._running.manager._exports[TARGETS[name]]
        self._exporting(
            name, msgspec.structs.replace(known, epoch=epoch, access=None),
            lambda _: self._running.manager.revoke(TARGETS[name], epoch),
        )  # fmt: skip

    def _exporting(self, name, export, call):
        def begin(promise):
            promise.exports.setdefault(export.target, {None}).add(export)
            promise.volumes[name].raising(export.epoch)

        def done(promise):
            promise.exports[export.target] = {export}
            promise.volumes[name].raised(export.epoch)

        self.mark(begin)
        call(export)
        self.mark(done)

    def _unexport(self, name):
        epoch = self._epoch(name)
        known = self._running.manager._exports.get(TARGETS[name])

        def begin(promise):
            going = {msgspec.structs.replace(known, epoch=epoch, access=None)} if known else set()
            promise.exports[TARGETS[name]] |= {None, *going}
            promise.volumes[name].raising(epoch)

        def done(promise):
            promise.exports[TARGETS[name]] = {None}
            if known:  # else nobody was told anything
                promise.volumes[name].raised(epoch)
            if not lost:
                promise.volumes[name].flushed()

        self.mark(begin)
        self._running.manager.unexport(TARGETS[name], epoch)
        lost = self.is_lost(name)
        self.mark(done)

    def _session(self, name):
        manager, target = self._running.manager, Iqn(TARGETS[name])
        admission = manager.admit(INITIATOR, target, manager.credentials(INITIATOR, target, ""), Connection())
        return Session(admission.descriptors, immediate=self.chance.random() < 0.6)

    def _write(self, name, session=None):
        """Write something, somewhere; within somebody else's flush if that lends its session."""
        sectors = min(self.promise.volumes[name].sizes)
        first = self.chance.randrange(sectors)
        blocks = min(self.chance.choice((1, 1, 2, 3, 8, 9, 16, 30)), sectors - first)
        if self.chance.random() < 0.3:
            first, blocks = first // 8 * 8, min(8, sectors - first // 8 * 8)
        self._fill += 1
        zeros, fua = bytes(blocks * SECTOR), False
        kind = self.chance.choices(("write", "fua", "unmap", "same"), (50, 0 if session else 20, 25, 5))[0]
        session = session or self._session(name)
        octets = zeros
        if kind in ("write", "fua"):
            octets = b"".join(
                f"{self._fill} {number} ".encode().ljust(SECTOR, b"%c" % (self._fill % 255 + 1))
                for number in range(blocks)
            )
        elif kind == "same":
            octets = f"{self._fill} same".encode().ljust(SECTOR, b"s") * blocks
        self.mark(lambda promise: promise.volumes[name].begin(first * SECTOR, octets))
        match kind:
            case "write":
                sense = session.write(first, octets)
            case "fua":
                sense, fua = session.write(first, octets, fua=True), True
            case "unmap":
                sense = session.unmap(first, blocks)
            case _:
                sense = session.write_same(first, blocks, octets[:SECTOR])
        if sense is not None:
            raise Refused(f"{kind} answered {sense}")
        self.mark(lambda promise: promise.volumes[name].done())
        if fua:
            self.mark(lambda promise: promise.volumes[name].flushed())

    def _flush(self, name):
        match self.chance.randrange(5):
            case 0:
                if TARGETS[name] not in self._running.manager._exports:
                    raise Refused(f"{name} is not exported: nothing would be flushed")
                self._running.manager.drop(TARGETS[name])
                for session in [*self._running.manager._sessions.values()]:
                    self._running.manager.gone(session.id, "dropped")
                sense = self._running.manager.drain(TARGETS[name]) or None
            case 1:
                sense = self._session(name).stop()
            case 2:
                sense = self._session(name).read(0, 1, fua=True)
            case 3:
                sense = self._flush_while_another_writes(name)
            case _:
                sense = self._session(name).synchronize()
        if sense is not None:
            raise Refused(f"a flush answered {sense}")
        self.mark(lambda promise: promise.volumes[name].flushed())

    def _flush_while_another_writes(self, name):
        flusher = self._session(name)  # a second login would end the first
        lun, epoch = ExportedLun(0, volume=name), self._running.manager._exports[TARGETS[name]].epoch
        writer = Session({0: self._running.manager._local_transport.connect(TARGETS[name], lun, epoch)})
        refusals = []

        def write():
            try:
                self._write(name, writer)
            except Refused as error:  # which is the writer's, and not the flush's
                refusals.append(error)

        self.mark(lambda promise: promise.volumes[name].flushing())
        self.recorder.meanwhile(self.chance.randrange(4), write)
        sense = flusher.synchronize()
        self.recorder.meanwhile(0, lambda: None)
        if refusals and sense is None:
            self.mark(lambda promise: promise.volumes[name].flushed())
            raise refusals[0]
        return sense

    def _end_cleanly(self):
        for session in [*self._running.manager._sessions.values()]:
            self._running.manager.gone(session.id, "closed")
        self._running.end()
        self._running = None
        self.mark(lambda promise: [volume.flushed() for volume in promise.volumes.values()])
