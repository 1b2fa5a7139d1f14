"""The target's side of an iSCSI login (RFC 7143 sections 6, 11.12, 11.13 and 13).

    CSG=0  security                                     CSG=1  operational                 full feature phase
    ┌─────────┐ CHAP ┌──────────┐ CHAP_A ┌────────────┐
    │ OPENING │ ───▶ │ CHOSEN   │ ─────▶ │ CHALLENGED │
    └─────────┘      └──────────┘        └────────────┘
         │ None, where nothing must           │ proved
         │ be proved          ┌───────────────┘
         ▼                    ▼
    ┌────────────────────────────┐   T, NSG=1   ┌─────────────┐   T, NSG=3    ┌──────────┐
    │       AUTHENTICATED        │ ───────────▶ │ OPERATIONAL │ ────────────▶ │ FINISHED │
    └────────────────────────────┘              └─────────────┘               └──────────┘
         │ T, NSG=3                                   ▲                             ▲
         └────────────────────────────────────────────┼─────────────────────────────┘
    Linux and libiscsi begin here with CSG=1 when they have no user: refused where something must be proved

The caller holds the socket and knows the targets.  Each step is a value:

    receive(request)   ──▶ AskCredentials(initiator, target)  ──▶ may_prove(candidates)  ──▶ …
                       ──▶ AskAdmission()                     ──▶ admit(tsih) or refuse(status, why) ──▶ …
                       ──▶ Answer(response)                   send it; then look at ``state``
"""

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Literal

import msgspec

from panloom.errors import MalformedError
from panloom.protocol.chap import ChapTarget, Credentials
from panloom.protocol.iscsi_keys import RECEIVE_OCTETS, SessionParameters, negotiate
from panloom.values import Iqn
from panloom.wire import iscsi
from panloom.wire.iscsi import LoginRequest, LoginResponse
from panloom.wire.iscsi_text import decode_text, encode_text

PORTAL_GROUP = 1  # the tag of all our portals
COMMAND_WINDOW = 128  # commands an initiator may have under way
MAX_REQUESTS = 24  # in one login; a long one has five
MAX_TEXT_OCTETS = 16384  # in one request continued over several PDUs (C bit)

SECURITY, OPERATIONAL_STAGE, FULL_FEATURE = 0, 1, 3
OPEN_ISCSI_ISID = bytes.fromhex("00023d")


class Status(Enum):
    """Class and detail of a login's end (RFC 7143 section 11.13.5)."""

    SUCCESS = (0x00, 0x00)
    MOVED_TEMPORARILY = (0x01, 0x01)
    MOVED_PERMANENTLY = (0x01, 0x02)
    INITIATOR_ERROR = (0x02, 0x00)
    AUTHENTICATION_FAILURE = (0x02, 0x01)
    AUTHORIZATION_FAILURE = (0x02, 0x02)
    UNSUPPORTED_VERSION = (0x02, 0x05)
    TOO_MANY_CONNECTIONS = (0x02, 0x06)
    MISSING_PARAMETER = (0x02, 0x07)
    SESSION_TYPE_NOT_SUPPORTED = (0x02, 0x09)
    SESSION_DOES_NOT_EXIST = (0x02, 0x0A)
    INVALID_REQUEST = (0x02, 0x0B)
    SERVICE_UNAVAILABLE = (0x03, 0x01)


class State(Enum):
    """Where the login stands; the picture is above."""

    OPENING = auto()
    CHOSEN = auto()
    CHALLENGED = auto()
    AUTHENTICATED = auto()
    OPERATIONAL = auto()
    FINISHED = auto()
    REFUSED = auto()


class AskCredentials(msgspec.Struct, frozen=True, gc=False):
    """What must this initiator prove?  ``target`` None: a discovery session.  Go on with ``may_prove``."""

    initiator: Iqn
    target: Iqn | None


class AskAdmission(msgspec.Struct, frozen=True, gc=False):
    """May the initiator, which has proved what it must, come in?  Go on with ``admit`` or ``refuse``.

    ``IscsiLogin.tsih`` other than 0 wants to come back into a session, whose connection is over then.
    """


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Send this; afterwards ``state`` may be FINISHED or REFUSED, which end the login."""

    response: LoginResponse


Step = AskCredentials | AskAdmission | Answer


class IscsiLogin:
    """One connection's login, from its first PDU to full feature phase or refusal."""

    def __init__(
        self,
        *,
        identifier: int,
        challenge: bytes,
        is_ours: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        """Begin a login; ``identifier`` (0 … 255) and ``challenge`` (16 random octets or more) serve this one alone.

        ``is_ours`` says of a challenge whether it has been put to anybody.
        """
        self.state = State.OPENING
        self.initiator: Iqn | None = None
        self.target: Iqn | None = None  # None in a discovery session
        self.proved = Credentials()
        self.parameters = SessionParameters()
        self.offered: dict[str, str] = {}  # every key that the initiator has said
        self.why = ""  # of a refusal
        self.stat_sn = 0
        self._identifier, self._challenge, self._is_ours = identifier, challenge, is_ours
        self._chap: ChapTarget | None = None
        self._candidates: tuple[Credentials, ...] = ()
        self._first: LoginRequest | None = None
        self._request: LoginRequest | None = None  # the one being answered
        self._keys: dict[str, str] = {}  # said in it
        self._answers: list[tuple[str, str]] = []  # what its answer will say
        self._text = b""  # continued
        self._requests = 0
        self._stage = SECURITY
        self._declared = False  # our MaxRecvDataSegmentLength

    # -- steps ---------------------------------------------------------------------------------------------------

    def receive(self, request: LoginRequest) -> Step:
        """Take the initiator's next request."""
        self._request = request
        self._requests += 1
        wrong = self._wrong_header(request)
        if wrong is not None:
            return self.refuse(*wrong)
        if len(self._text) + len(request.data) > MAX_TEXT_OCTETS or self._requests > MAX_REQUESTS:
            return self.refuse(Status.INITIATOR_ERROR, "a login without end")
        self._text += bytes(request.data)
        if request.flags & iscsi.CONTINUE:
            return self._answer()
        text, self._text = self._text, b""
        try:
            self._keys = decode_text(text)
            if any(self.offered.get(key, value) != value for key, value in self._keys.items()):
                raise MalformedError("a key is said twice, and differently")
            self.offered |= self._keys
            return self._open() if self.initiator is None else self._go_on(request)
        except (MalformedError, ValueError) as error:
            return self.refuse(Status.INITIATOR_ERROR, str(error))

    def may_prove(self, candidates: tuple[Credentials, ...]) -> Step:
        """Go on after AskCredentials: any of these will do; an empty tuple refuses the initiator."""
        if not candidates or self._request is None:
            return self.refuse(Status.AUTHORIZATION_FAILURE, "not allowed here")
        self._candidates = candidates
        if self.target is not None:
            self._answers.append(("TargetPortalGroupTag", str(PORTAL_GROUP)))  # section 13.9: in the first answer
        try:
            return self._go_on(self._request)
        except MalformedError as error:
            return self.refuse(Status.INITIATOR_ERROR, str(error))

    def admit(self, tsih: int) -> Step:
        """Go on after AskAdmission: the session is in, under this handle (1 … 65535)."""
        self.state = State.FINISHED
        return self._answer(transit=FULL_FEATURE, tsih=tsih)

    def redirect(self, address: str, *, permanent: bool) -> Answer:
        """Send the initiator to another portal, given as ``address:port,portal group tag`` (section 11.13.5)."""
        status = Status.MOVED_PERMANENTLY if permanent else Status.MOVED_TEMPORARILY
        return self.refuse(status, f"moved to {address}", [("TargetAddress", address)])

    def refuse(self, status: Status, why: str, keys: Sequence[tuple[str, str]] = ()) -> Answer:
        """End the login; ``why`` is for the log, ``keys`` for the initiator."""
        self.state = State.REFUSED
        self.why = why
        self._answers = list(keys)
        return self._answer(status=status)

    @property
    def cmd_sn(self) -> int:
        """Return the CmdSN of the first command in full feature phase (RFC 7143 section 4.2.2.1)."""
        return self._request.cmd_sn if self._request else 0

    @property
    def isid(self) -> bytes:
        """Return the initiator's part of the session's identifier."""
        return self._first.isid if self._first else b""

    @property
    def cid(self) -> int:
        """Return the connection's identifier."""
        return self._first.cid if self._first else 0

    @property
    def tsih(self) -> int:
        """Return the session that the connection is to join, 0 for a new one."""
        return self._first.tsih if self._first else 0

    @property
    def stages(self) -> int:
        """Return how many negotiation stages the initiator chose to go through, 1 or 2."""
        return 1 if self._first and self._first.current_stage == OPERATIONAL_STAGE else 2

    # -- what a request says -------------------------------------------------------------------------------------

    def _wrong_header(self, request: LoginRequest) -> tuple[Status, str] | None:
        if self._first is None:
            self._first = request
            self.stat_sn = request.exp_stat_sn
            self._stage = min(request.current_stage, OPERATIONAL_STAGE)  # a login begins in either
        current, goal, first = request.current_stage, request.next_stage, self._first
        if request.version_min > 0:
            return Status.UNSUPPORTED_VERSION, f"version {request.version_min} wanted, version 0 is spoken"
        if self.state in (State.FINISHED, State.REFUSED):
            return Status.INVALID_REQUEST, "a login request after the login"
        if _identity(request) != _identity(first):
            return Status.INVALID_REQUEST, "ISID, TSIH, CID or task tag changed during the login"
        if current != self._stage:
            return Status.INITIATOR_ERROR, f"stage {current} instead of {self._stage}"
        if request.transit and (request.flags & iscsi.CONTINUE or goal == 2 or goal <= current):
            return Status.INITIATOR_ERROR, f"no transition from stage {current} to {goal}"
        return None

    def _open(self) -> Step:
        """Learn who wants to log in where."""
        kind = self._keys.get("SessionType", "Normal")
        if kind not in ("Normal", "Discovery"):
            return self.refuse(Status.SESSION_TYPE_NOT_SUPPORTED, f"session type {kind[:40]!r}")
        if "InitiatorName" not in self._keys or (kind == "Normal" and "TargetName" not in self._keys):
            return self.refuse(Status.MISSING_PARAMETER, "InitiatorName or TargetName is missing")
        self.initiator = Iqn.parse(self._keys["InitiatorName"])
        if kind == "Normal":
            self.target = Iqn.parse(self._keys["TargetName"])
        return AskCredentials(self.initiator, self.target)

    def _go_on(self, request: LoginRequest) -> Step:
        match self.state:
            case State.OPERATIONAL:
                return self._operate(request)
            case State.OPENING if self._stage == OPERATIONAL_STAGE:
                if not self._prove_nothing():
                    return self.refuse(Status.AUTHENTICATION_FAILURE, "the security stage was left out")
                return self._operate(request)
            case State.OPENING:
                return self._choose_method(request)
            case State.CHOSEN:
                return self._challenge_it()
            case State.CHALLENGED:
                return self._verify(request)
            case _:
                return self._leave_security(request)

    def _prove_nothing(self) -> bool:
        """Whether the initiator may come in unproved; in discovery it then sees only what is open to it."""
        return self.target is None or any(candidate.user is None for candidate in self._candidates)

    # -- security stage ------------------------------------------------------------------------------------------

    def _choose_method(self, request: LoginRequest) -> Step:
        offered = self._keys.get("AuthMethod", "None").split(",")
        secrets = tuple(candidate for candidate in self._candidates if candidate.user is not None)
        if secrets and "CHAP" in offered:
            self._chap = ChapTarget(
                secrets, identifier=self._identifier, challenge=self._challenge, is_ours=self._is_ours
            )
            self.state = State.CHOSEN
            self._answers.append(("AuthMethod", "CHAP"))
            return self._answer()
        if "None" in offered and self._prove_nothing():
            if "AuthMethod" in self._keys:
                self._answers.append(("AuthMethod", "None"))
            return self._leave_security(request)
        return self.refuse(Status.AUTHENTICATION_FAILURE, f"AuthMethod {','.join(offered)[:40]!r} will not do")

    def _challenge_it(self) -> Step:
        question = self._chap.ask(self._keys) if self._chap else None
        if question is None:
            return self.refuse(Status.AUTHENTICATION_FAILURE, "CHAP without an algorithm that is known here")
        self.state = State.CHALLENGED
        self._answers += question
        return self._answer()

    def _verify(self, request: LoginRequest) -> Step:
        proved = self._chap.verify(self._keys) if self._chap else None
        if proved is None:
            return self.refuse(Status.AUTHENTICATION_FAILURE, "the CHAP response is wrong")
        self.proved = proved.credentials
        self._answers += proved.answers
        return self._leave_security(request)

    def _leave_security(self, request: LoginRequest) -> Step:
        self.state = State.AUTHENTICATED
        if not request.transit:
            return self._answer()
        if request.next_stage == FULL_FEATURE:
            return AskAdmission()
        self.state, self._stage = State.OPERATIONAL, OPERATIONAL_STAGE
        return self._answer(transit=OPERATIONAL_STAGE)

    # -- operational stage ---------------------------------------------------------------------------------------

    def _operate(self, request: LoginRequest) -> Step:
        if not self._declared:
            self._declared = True
            self._answers.append(("MaxRecvDataSegmentLength", str(RECEIVE_OCTETS)))
        self.state = State.OPERATIONAL
        self.parameters, answers = negotiate(self._keys, self.parameters)
        self._answers += answers
        return AskAdmission() if request.transit else self._answer()

    # -- answers -------------------------------------------------------------------------------------------------

    def _answer(self, *, transit: int | None = None, tsih: int = 0, status: Status = Status.SUCCESS) -> Answer:
        request = self._request
        if request is None:
            raise ValueError("nothing has been asked")
        flags = request.current_stage << 2 if status is Status.SUCCESS else 0
        if transit is not None:
            flags |= iscsi.FINAL | transit
        answers, self._answers = self._answers, []
        response = LoginResponse(
            flags=flags,
            isid=request.isid,
            tsih=tsih,
            initiator_task_tag=request.initiator_task_tag,
            stat_sn=self.stat_sn,
            exp_cmd_sn=request.cmd_sn,
            max_cmd_sn=(request.cmd_sn + COMMAND_WINDOW - 1) & 0xFFFFFFFF,
            status_class=status.value[0],
            status_detail=status.value[1],
            data=encode_text(answers),
        )
        self.stat_sn = (self.stat_sn + 1) & 0xFFFFFFFF
        return Answer(response)


def _identity(request: LoginRequest) -> tuple[bytes, int, int, int]:
    """Return what stays the same in all requests of a login (section 11.12)."""
    return request.isid, request.tsih, request.cid, request.initiator_task_tag


def session_kind(login: IscsiLogin) -> Literal["firmware", "kernel", "unknown"]:
    """Guess who has logged in: only a kernel answers pings, and must.

    Firmware (iPXE, SeaBIOS through it, EFI's own) goes through both stages and wants neither immediate nor unsolicited
    data.  Linux's initiator has an ISID of its own, 00023D…, fixed in open-iscsi.  Everything else is unknown.
    """
    wants = login.offered
    if login.stages == 2 and wants.get("ImmediateData") == "No" and wants.get("InitialR2T") == "Yes":
        return "firmware"
    return "kernel" if login.isid[:3] == OPEN_ISCSI_ISID else "unknown"
