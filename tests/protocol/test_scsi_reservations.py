"""Persistent reservations against a plain model: what is registered, who holds what, and who may do what."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from panloom.protocol.scsi_reservations import TYPES, Access, Change, NexusName, Registration, Reservations, change
from panloom.protocol.scsi_verdicts import Conflict
from panloom.wire import scsi_cdb, scsi_sense
from panloom.wire.scsi_cdb import PersistentReserveOut
from panloom.wire.scsi_reserve import MoveParameters, ReserveParameters

TARGET = "iqn.2026-11.dev.panloom:shop.web1"
NAMES = tuple(NexusName(f"iqn.2026-11.dev.panloom:node.n{number},i,0x80000000000{number}", TARGET) for number in "123")
KEYS = st.sampled_from([0, 1, 2, 3])
READERS = {1, 5, 7}
SHARED = {5, 6, 7, 8}


def act(state, nexus, action, *, key=0, new=0, kind=0, **more):
    return change(state, nexus, PersistentReserveOut(action, kind, 24), ReserveParameters(key, new, **more))


class Slow(RuleBasedStateMachine):
    """The model: a dictionary of keys, and the reservation as a pair."""

    def __init__(self):
        super().__init__()
        self.state = Reservations()
        self.keys = {}
        self.held = None  # (type, holder), and holder None where all registered are
        self.generations = [0]

    def check(self, nexus, action, allowed, *, key=0, new=0, kind=0):
        made = act(self.state, nexus, action, key=key, new=new, kind=kind)
        assert isinstance(made, Change) == allowed, made
        if allowed:
            self.state = made.after
            assert nexus not in {registration.nexus for registration, _ in made.told}
        return made

    def holds(self, nexus):
        return self.held is not None and nexus in self.keys and self.held[1] in (None, nexus)

    def forget(self, gone):
        for nexus in gone:
            del self.keys[nexus]
        if self.held and ((self.held[1] in gone) or (self.held[1] is None and not self.keys)):
            self.held = None

    @rule(nexus=st.sampled_from(NAMES), key=KEYS, new=KEYS, ignore=st.booleans())
    def register(self, nexus, key, new, ignore):
        action = scsi_cdb.REGISTER_AND_IGNORE_EXISTING_KEY if ignore else scsi_cdb.REGISTER
        allowed = ignore or self.keys.get(nexus, 0) == key
        self.check(nexus, action, allowed, key=key, new=new)
        if allowed and new:
            self.keys[nexus] = new
        elif allowed and nexus in self.keys:
            self.forget([nexus])

    @rule(nexus=st.sampled_from(NAMES), key=KEYS, kind=st.sampled_from(sorted(TYPES)))
    def reserve(self, nexus, key, kind):
        known = nexus in self.keys and self.keys[nexus] == key
        free = self.held is None or (self.holds(nexus) and self.held[0] == kind)
        self.check(nexus, scsi_cdb.RESERVE, known and free, key=key, kind=kind)
        if known and self.held is None:
            self.held = kind, None if kind in (7, 8) else nexus

    @rule(nexus=st.sampled_from(NAMES), key=KEYS, kind=st.sampled_from(sorted(TYPES)))
    def release(self, nexus, key, kind):
        known = nexus in self.keys and self.keys[nexus] == key
        wrong = self.holds(nexus) and self.held[0] != kind
        made = self.check(nexus, scsi_cdb.RELEASE, known and not wrong, key=key, kind=kind)
        if known and self.holds(nexus) and not wrong:
            told = {registration.nexus for registration, _ in made.told}
            assert told == (set(self.keys) - {nexus} if kind in SHARED else set())
            self.held = None

    @rule(nexus=st.sampled_from(NAMES), key=KEYS)
    def clear(self, nexus, key):
        known = nexus in self.keys and self.keys[nexus] == key
        self.check(nexus, scsi_cdb.CLEAR, known, key=key)
        if known:
            self.keys, self.held = {}, None

    @rule(nexus=st.sampled_from(NAMES), key=KEYS, new=KEYS, kind=st.sampled_from(sorted(TYPES)), abort=st.booleans())
    def preempt(self, nexus, key, new, kind, abort):
        known = nexus in self.keys and self.keys[nexus] == key
        everybody = self.held is not None and self.held[1] is None
        takes = (everybody and new == 0) or (self.held is not None and not everybody and self.keys[self.held[1]] == new)
        gone = [each for each in self.keys if (each != nexus or not takes) and (self.keys[each] == new or not new)]
        allowed = known and (takes or (new != 0 and bool(gone)))
        made = self.check(
            nexus,
            scsi_cdb.PREEMPT_AND_ABORT if abort else scsi_cdb.PREEMPT,
            allowed,
            key=key,
            new=new,
            kind=kind,
        )
        if allowed:
            assert {each.nexus for each in made.aborted} == (set(gone) - {nexus} if abort else set())
            if takes:
                self.held = None
            self.forget(gone)
            if takes:
                self.held = kind, None if kind in (7, 8) else nexus

    @invariant()
    def it_is_as_the_model_says(self):
        assert {each.nexus: each.key for each in self.state.registrations} == self.keys
        assert (self.state.type, self.state.holder) == (self.held or (0, None))

    @invariant()
    def generations_never_go_back(self):
        assert self.state.generation >= self.generations[-1]
        self.generations.append(self.state.generation)

    @invariant()
    def access_is_as_the_table_says(self):
        for nexus in NAMES:
            kind = self.held[0] if self.held else 0
            everything = not kind or self.holds(nexus) or (kind in SHARED and nexus in self.keys)
            assert self.state.permit(nexus, Access.WRITE) == everything
            assert self.state.permit(nexus, Access.READ) == (everything or kind in READERS)
            assert self.state.permit(nexus, Access.FREE)


TestSlow = Slow.TestCase


def registered(*pairs, **more):
    return Reservations(registrations=tuple(Registration(nexus, key) for nexus, key in pairs), **more)


def test_who_unregisters_is_told_nothing_and_other_registrants_are():
    state = registered((NAMES[0], 1), (NAMES[1], 2), type=5, holder=NAMES[0])
    made = act(state, NAMES[0], scsi_cdb.REGISTER, key=1)
    assert made.told == ((Registration(NAMES[1], 2), scsi_sense.RESERVATIONS_RELEASED),)
    assert made.after.type == 0
    alone = msgspec.structs.replace(state, type=1)
    assert act(alone, NAMES[0], scsi_cdb.REGISTER, key=1).told == ()  # not with the types of one


def test_spec_i_pt_registers_ports_that_never_came():
    other = NAMES[1].initiator
    made = act(Reservations(), NAMES[0], scsi_cdb.REGISTER, new=7, initiators=(other,))
    assert {(each.nexus, each.key) for each in made.after.registrations} == {(NAMES[0], 7), (NAMES[1], 7)}
    assert isinstance(act(made.after, NAMES[2], scsi_cdb.REGISTER, new=8, initiators=(other,)), Conflict)
    assert act(made.after, NAMES[0], scsi_cdb.REGISTER, key=7, new=9, initiators=(other,)) == (
        scsi_sense.INVALID_FIELD_IN_PARAMETERS
    )


def test_all_tg_pt_counts_for_every_target():
    made = act(Reservations(), NAMES[0], scsi_cdb.REGISTER, new=7, all_targets=True)
    elsewhere = NexusName(NAMES[0].initiator, "iqn.2026-11.dev.panloom:shop.web2")
    assert made.after.of(elsewhere).key == made.after.of(NAMES[0]).key == 7
    assert made.after.of(NAMES[1]) is None


@pytest.mark.parametrize("unregister", [True, False])
def test_register_and_move(unregister):
    state = registered((NAMES[0], 1), type=1, holder=NAMES[0])
    move = MoveParameters(1, 5, True, unregister, 1, NAMES[1].initiator)
    command = PersistentReserveOut(scsi_cdb.REGISTER_AND_MOVE, 1, 24)
    made = change(state, NAMES[0], command, move)
    assert made.after.holder == NAMES[1]
    assert made.after.durable
    assert (made.after.of(NAMES[0]) is None) == unregister
    assert isinstance(change(made.after, NAMES[0], command, move), Conflict)  # it holds it no more
    everybody = msgspec.structs.replace(state, type=7, holder=None)
    assert change(everybody, NAMES[0], command, move) == scsi_sense.INVALID_FIELD_IN_CDB
    itself = msgspec.structs.replace(move, initiator=NAMES[0].initiator)
    assert change(state, NAMES[0], command, itself) == scsi_sense.INVALID_FIELD_IN_PARAMETERS


@given(st.sampled_from([0, 2, 4, 9, 15]), st.sampled_from([scsi_cdb.RESERVE, scsi_cdb.PREEMPT]))
def test_types_that_do_not_exist(kind, action):
    state = registered((NAMES[0], 1))
    assert act(state, NAMES[0], action, key=1, new=1, kind=kind) == scsi_sense.INVALID_FIELD_IN_CDB
    assert act(state, NAMES[0], action, key=1, new=1, kind=0x11) == scsi_sense.INVALID_FIELD_IN_CDB  # a scope


def test_a_release_of_another_type_is_told():
    state = registered((NAMES[0], 1), type=3, holder=NAMES[0])
    assert act(state, NAMES[0], scsi_cdb.RELEASE, key=1, kind=1) == scsi_sense.INVALID_RELEASE
