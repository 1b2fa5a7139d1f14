"""PERSISTENT RESERVE IN and OUT, RESERVE(6) and RELEASE(6) at one unit (SPC-4 r37 6.15, 6.16; SPC-2 r20 7.16, 7.21).

OUT ──▶ parameters ──▶ change (scsi_reservations) ──▶ durable, where APTPL asks for it ──▶ it counts, others are told
                                                                        └─▶ PREEMPT AND ABORT: wait for the victims
"""

from panloom.errors import MalformedError
from panloom.protocol import scsi_reservations
from panloom.protocol.scsi_reservations import EVERY_TARGET, Change
from panloom.protocol.scsi_unit import LogicalUnit, Nexus
from panloom.protocol.scsi_verdicts import (
    GOOD,
    MAX_WANTED_OCTETS,
    Conflict,
    Data,
    Perform,
    Quiesce,
    Then,
    Verdict,
    Wants,
)
from panloom.wire import scsi_cdb, scsi_reserve, scsi_sense
from panloom.wire.scsi_reserve import FullStatus, MoveParameters, ReserveParameters
from panloom.wire.scsi_sense import Sense

_WITH_DURABLE = frozenset((scsi_cdb.REGISTER, scsi_cdb.REGISTER_AND_IGNORE_EXISTING_KEY, scsi_cdb.REGISTER_AND_MOVE))


def reserve(unit: LogicalUnit, nexus: Nexus) -> Verdict:
    """Return what RESERVE(6) means; a unit with persistent registrations has no place for it."""
    if unit.reservations.registrations or unit.reserved_by not in (None, nexus):
        return Conflict()
    unit.reserved_by = nexus
    unit.recheck()
    return GOOD


def release(unit: LogicalUnit, nexus: Nexus) -> Verdict:
    """Return what RELEASE(6) means: nothing, for whoever does not hold the unit."""
    if unit.reserved_by is nexus:
        unit.reserved_by = None
        unit.recheck()
    return Conflict() if unit.reservations.registrations else GOOD


def tell(unit: LogicalUnit, command: scsi_cdb.PersistentReserveIn) -> Verdict:
    """Return what PERSISTENT RESERVE IN means."""
    state = unit.reservations
    match command.service_action:
        case scsi_cdb.READ_KEYS:
            octets = scsi_reserve.encode_keys(state.generation, tuple(each.key for each in state.registrations))
        case scsi_cdb.READ_RESERVATION:
            key = next((each.key for each in state.registrations if each.nexus == state.holder), 0)
            octets = scsi_reserve.encode_reservation(state.generation, key, state.type)
        case scsi_cdb.REPORT_CAPABILITIES:
            octets = scsi_reserve.encode_capabilities(durable_possible=unit.can_keep, durable=state.durable)
        case scsi_cdb.READ_FULL_STATUS:
            listed = tuple(
                FullStatus(
                    each.key,
                    each.nexus.initiator,
                    each.nexus.target == EVERY_TARGET,
                    state.type if state.is_holder(each) else 0,
                )
                for each in state.registrations
            )
            octets = scsi_reserve.encode_full_status(state.generation, listed)
        case _:
            return scsi_sense.INVALID_FIELD_IN_CDB
    return Data(octets[: command.allocation_length])


def change(unit: LogicalUnit, nexus: Nexus, command: scsi_cdb.PersistentReserveOut) -> Verdict:
    """Return what PERSISTENT RESERVE OUT means."""
    if command.service_action > scsi_cdb.REGISTER_AND_MOVE:
        return scsi_sense.INVALID_FIELD_IN_CDB
    if not scsi_reserve.PARAMETERS_OCTETS <= command.parameter_list_length <= MAX_WANTED_OCTETS:
        return scsi_sense.PARAMETER_LIST_LENGTH

    def follow(octets: bytes) -> Verdict:
        parameters = _parameters(unit, command, octets)
        return parameters if isinstance(parameters, Sense) else _Change(unit, nexus, command, parameters).verdict()

    return Wants(command.parameter_list_length, follow)


def _parameters(
    unit: LogicalUnit, command: scsi_cdb.PersistentReserveOut, octets: bytes
) -> ReserveParameters | MoveParameters | Sense:
    moves = command.service_action == scsi_cdb.REGISTER_AND_MOVE
    try:
        parameters = scsi_reserve.decode_move(octets) if moves else scsi_reserve.decode_parameters(octets)
    except MalformedError:
        many = len(octets) > scsi_reserve.PARAMETERS_OCTETS
        spec_i_pt = many and (moves or octets[20] & 0x08)
        return scsi_sense.INVALID_FIELD_IN_PARAMETERS if spec_i_pt else scsi_sense.PARAMETER_LIST_LENGTH
    if command.service_action in _WITH_DURABLE and parameters.durable and not unit.can_keep:
        return scsi_sense.INVALID_FIELD_IN_PARAMETERS
    if isinstance(parameters, MoveParameters):
        if parameters.target_port != scsi_reserve.TARGET_PORT:
            return scsi_sense.INVALID_FIELD_IN_PARAMETERS
    elif parameters.initiators is not None and command.service_action != scsi_cdb.REGISTER:
        return scsi_sense.INVALID_FIELD_IN_PARAMETERS
    return parameters


class _Change:
    """One PERSISTENT RESERVE OUT on its way: decided, made durable, made to count, all in one go for each unit."""

    def __init__(
        self,
        unit: LogicalUnit,
        nexus: Nexus,
        command: scsi_cdb.PersistentReserveOut,
        parameters: ReserveParameters | MoveParameters,
    ) -> None:
        self._unit = unit
        self._nexus = nexus
        self._command = command
        self._parameters = parameters
        self._outcome: Verdict = GOOD

    def verdict(self) -> Verdict:
        """Return what is to be done for it."""
        return Then(Perform(self._perform), lambda: self._outcome)

    def _perform(self) -> Sense | None:
        unit = self._unit
        with unit.keeping:
            with unit.lock:
                made = scsi_reservations.change(unit.reservations, self._nexus.name, self._command, self._parameters)
            if not isinstance(made, Change):
                self._outcome = made
                return None
            try:
                unit.remember(reservations=made.after)
            except OSError:
                return scsi_sense.INSUFFICIENT_REGISTRATION_RESOURCES
            with unit.lock:
                unit.reservations = made.after
                for registration, sense in made.told:
                    unit.tell(registration, sense)
                unit.recheck()
                victims = tuple(nexus for each in made.aborted for nexus in unit.of(each) if nexus is not self._nexus)
        if victims:
            self._outcome = Quiesce(victims)
        return None
