"""The initiator's side of an iSCSI login (RFC 7143 sections 6, 11.12, 11.13 and 13).

    with a user    CSG=0  security                                   CSG=1  operational
                   ┌────────┐ AuthMethod ┌───────────┐ CHAP_A ┌──────────┐ CHAP_N ┌────────┐
                   │ METHOD │ ─────────▶ │ ALGORITHM │ ─────▶ │  PROOF   │ ─────▶ │ PROVED │
                   └────────┘            └───────────┘        └──────────┘ CHAP_R └────────┘
                       │ None                                                         │ T, NSG=1
                       └──────────────────────────────────────────────┐ ┌─────────────┘
    without one                                                       ▼ ▼
                   ───────────────────────────────────────────▶ ┌─────────────┐ T, NSG=3 ┌──────────┐
                                                                │ OPERATIONAL │ ───────▶ │ FINISHED │
                                                                └─────────────┘          └──────────┘

The caller sends ``first()``, and then what ``receive(response)`` returns:

    a LoginRequest   to be sent
    a Redirect       the target lives elsewhere; this login is over
    None             FINISHED: ``agreed``, ``exp_stat_sn``, ``exp_cmd_sn`` and ``max_cmd_sn`` begin full feature phase

A login that cannot go on raises ``LoginRefusedError`` (the target's word), RefusedError (the target wants what we
cannot agree to, or has not proved itself) or MalformedError.
"""

from enum import Enum, auto

import msgspec

from panloom.errors import MalformedError, RefusedError
from panloom.protocol.chap import ChapInitiator, Secrets
from panloom.protocol.iscsi_initiator_keys import Agreed, Negotiation, Wishes
from panloom.protocol.serial_number import after
from panloom.values import Iqn
from panloom.wire import iscsi
from panloom.wire.iscsi import LoginRequest, LoginResponse, Pdu
from panloom.wire.iscsi_text import Portal, decode_number, decode_portal, decode_text, encode_text

SECURITY, OPERATIONAL_STAGE, FULL_FEATURE = 0, 1, 3
MAX_RESPONSES = 24  # in one login; a long one has five
MAX_TEXT_OCTETS = 16384  # in one response continued over several PDUs (C bit)

REDIRECTED, INITIATOR_ERROR, TARGET_ERROR = 0x01, 0x02, 0x03  # status classes, section 11.13.5
TARGET_MOVED_FOR_GOOD = 0x02  # detail of REDIRECTED
_DETAILS = {
    (0x02, 0x00): "something in the request is wrong",
    (0x02, 0x01): "authentication failed: wrong user or secret, or a login without one where one is needed",
    (0x02, 0x02): "this initiator may not use the target",
    (0x02, 0x03): "no such target there",
    (0x02, 0x04): "the target has been removed",
    (0x02, 0x05): "another version of iSCSI is wanted",
    (0x02, 0x06): "too many connections",
    (0x02, 0x07): "a parameter is missing",
    (0x02, 0x08): "the session cannot span that portal",
    (0x02, 0x09): "this type of session is not supported",
    (0x02, 0x0A): "the session does not exist",
    (0x02, 0x0B): "invalid during login",
    (0x03, 0x00): "the target has an internal error",
    (0x03, 0x01): "the service is not available now",
    (0x03, 0x02): "the target is out of resources",
}
# What may be otherwise in a moment: a target that comes up, or has not yet noticed that our last connection is dead.
_PASSING = {(0x02, 0x03), (0x02, 0x06)}


class LoginRefusedError(RefusedError):
    """The target has refused the login; ``passing``: it may let us in later, as when it is starting."""

    def __init__(self, status_class: int, status_detail: int) -> None:
        self.status = status_class, status_detail
        self.passing = status_class == TARGET_ERROR or self.status in _PASSING
        why = _DETAILS.get(self.status, "for a reason that it does not name")
        super().__init__(f"the target refuses the login (status {status_class:02X}{status_detail:02X}): {why}")


class Redirect(msgspec.Struct, frozen=True, gc=False):
    """Log in there instead, from now on where ``permanent``, else this once."""

    portal: Portal
    permanent: bool


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Who logs in where: the same values on each connection make the same session (section 4.4.3.2).

    ``target`` None makes a discovery session.  ``portal_group``: refuse any other.
    """

    initiator: Iqn
    target: Iqn | None
    isid: bytes
    secrets: Secrets = Secrets()
    portal_group: int | None = None

    def __post_init__(self) -> None:
        if len(self.isid) != 6:
            raise ValueError(f"an ISID has 6 octets, not {len(self.isid)}")


class State(Enum):
    """What the login waits for; the picture is above."""

    METHOD = auto()
    ALGORITHM = auto()
    PROOF = auto()
    PROVED = auto()
    OPERATIONAL = auto()
    FINISHED = auto()


class InitiatorLogin:
    """One connection's login, from its first PDU to full feature phase.

    ``identifier`` and ``challenge`` are for mutual CHAP and serve this login alone.
    """

    def __init__(
        self, identity: Identity, wishes: Wishes, *, cmd_sn: int, task_tag: int, identifier: int, challenge: bytes
    ) -> None:
        discovers = identity.target is None
        self.state = State.OPERATIONAL if identity.secrets.user is None else State.METHOD
        self.agreed = Agreed()
        self.exp_stat_sn = 0
        self.exp_cmd_sn = self.max_cmd_sn = cmd_sn
        self.portal_group: int | None = None
        self._identity = identity
        self._cmd_sn = cmd_sn
        self._task_tag = task_tag
        self._chap = ChapInitiator(identity.secrets, identifier=identifier, challenge=challenge)
        self._negotiation = Negotiation(wishes, discovers=discovers)
        self._offered = False  # the operational keys
        self._request = self._build([])
        self._responses = 0
        self._text = b""  # continued

    def first(self) -> LoginRequest:
        """Return the request that opens the login."""
        identity = self._identity
        keys = [("InitiatorName", str(identity.initiator))]
        if identity.target is None:
            keys.append(("SessionType", "Discovery"))
        else:
            keys += [("SessionType", "Normal"), ("TargetName", str(identity.target))]
        if self.state is State.METHOD:
            # A target that has to prove itself may not choose that nobody does.
            keys.append(("AuthMethod", "CHAP,None" if identity.secrets.target_secret is None else "CHAP"))
            return self._ask(keys)
        return self._operate(keys)

    def receive(self, pdu: Pdu) -> LoginRequest | Redirect | None:
        """Take the target's answer; return what is to be done now, see above."""
        if not isinstance(pdu, LoginResponse):
            raise MalformedError(f"{type(pdu).__name__} during the login")
        self._check_header(pdu)
        keys = self._keys(pdu)
        if keys is None:
            return self._ask([])
        if pdu.status_class == REDIRECTED:
            if "TargetAddress" not in keys:
                raise MalformedError("a redirection without TargetAddress")
            return Redirect(decode_portal(keys["TargetAddress"]), pdu.status_detail == TARGET_MOVED_FOR_GOOD)
        self._check_portal_group(keys)
        return self._go_on(pdu, keys)

    # -- checks --------------------------------------------------------------------------------------------------

    def _check_header(self, response: LoginResponse) -> None:
        request = self._request
        self._responses += 1
        if self._responses > MAX_RESPONSES:
            raise MalformedError("a login without end")
        if response.status_class not in (0, REDIRECTED):
            raise LoginRefusedError(response.status_class, response.status_detail)
        if (response.initiator_task_tag, response.isid) != (request.initiator_task_tag, request.isid):
            raise MalformedError("a login response to another request")
        if response.version_active:
            raise RefusedError(f"the target speaks version {response.version_active} of iSCSI, we speak version 0")
        if self._responses > 1 and response.stat_sn != self.exp_stat_sn:
            raise MalformedError(f"StatSN {response.stat_sn} in the login instead of {self.exp_stat_sn}")
        self.exp_stat_sn = after(response.stat_sn)
        self.exp_cmd_sn, self.max_cmd_sn = response.exp_cmd_sn, response.max_cmd_sn
        if response.status_class == REDIRECTED:
            return
        transit = bool(response.flags & iscsi.FINAL)
        if response.flags >> 2 & 3 != request.current_stage:
            raise MalformedError(f"a login response for stage {response.flags >> 2 & 3} in {request.current_stage}")
        if transit and (not request.transit or response.flags & 3 != request.next_stage):
            raise MalformedError("the target goes on to a stage that we have not asked for")

    def _keys(self, response: LoginResponse) -> dict[str, str] | None:
        """Return what the target says; None while there is more to come (C bit)."""
        self._text += bytes(response.data)
        if len(self._text) > MAX_TEXT_OCTETS:
            raise MalformedError("a login text without end")
        if response.flags & iscsi.CONTINUE:
            return None
        text, self._text = self._text, b""
        return decode_text(text)

    def _check_portal_group(self, keys: dict[str, str]) -> None:
        if "TargetPortalGroupTag" not in keys:
            return
        said = decode_number(keys["TargetPortalGroupTag"])
        if said > 65535 or self.portal_group not in (None, said):
            raise MalformedError(f"TargetPortalGroupTag={said}")
        self.portal_group = said
        if self._identity.portal_group not in (None, said):
            raise RefusedError(f"portal group {said} answers, {self._identity.portal_group} is wanted")

    # -- stages --------------------------------------------------------------------------------------------------

    def _go_on(self, response: LoginResponse, keys: dict[str, str]) -> LoginRequest | None:
        transit = bool(response.flags & iscsi.FINAL)
        match self.state:
            case State.METHOD:
                return self._choose(keys.get("AuthMethod", ""), transit)
            case State.ALGORITHM:
                answer = self._chap.answer(keys)
                self.state = State.PROOF
                return self._ask(answer, goal=OPERATIONAL_STAGE)
            case State.PROOF:
                self._chap.verify(keys)
                self.state = State.PROVED
                return self._leave_security(transit)
            case State.PROVED:
                return self._leave_security(transit)
            case State.OPERATIONAL:
                return self._finish(self._negotiation.take(keys), transit)
            case State.FINISHED:
                raise MalformedError("a login response after the login")

    def _choose(self, method: str, transit: bool) -> LoginRequest:
        if method == "CHAP" and not transit:
            self.state = State.ALGORITHM
            return self._ask(self._chap.propose())
        if method == "None" and self._identity.secrets.target_secret is None:
            self.state = State.PROVED
            return self._leave_security(transit)
        if method == "None":
            raise RefusedError("the target wants no authentication, but has to prove itself here")
        raise RefusedError(f"the target answers AuthMethod={method[:40]!r} to our offer of CHAP")

    def _leave_security(self, transit: bool) -> LoginRequest:
        if not transit:
            return self._ask([], goal=OPERATIONAL_STAGE)
        self.state = State.OPERATIONAL
        return self._operate([])

    def _operate(self, keys: list[tuple[str, str]]) -> LoginRequest:
        if not self._offered:
            self._offered = True
            keys = [*keys, *self._negotiation.offers.items()]
        return self._ask(keys, goal=FULL_FEATURE)

    def _finish(self, answers: list[tuple[str, str]], transit: bool) -> LoginRequest | None:
        if not transit:
            return self._operate(answers)
        self.agreed = self._negotiation.agreed()
        self.state = State.FINISHED
        return None

    # -- requests ------------------------------------------------------------------------------------------------

    def _ask(self, keys: list[tuple[str, str]], *, goal: int | None = None) -> LoginRequest:
        self._request = self._build(keys, goal)
        return self._request

    def _build(self, keys: list[tuple[str, str]], goal: int | None = None) -> LoginRequest:
        stage = OPERATIONAL_STAGE if self.state is State.OPERATIONAL else SECURITY
        return LoginRequest(
            flags=stage << 2 | (0 if goal is None else iscsi.FINAL | goal),
            isid=self._identity.isid,
            initiator_task_tag=self._task_tag,
            cmd_sn=self._cmd_sn,
            exp_stat_sn=self.exp_stat_sn,
            data=encode_text(keys),
        )
