"""Nobody gets in without the secret (invariant A1), whatever an attacker does with what it hears.

The attacker opens connections at will, sees every challenge and every word of machines that log in properly beside it,
and says on its own connections whatever it can make of that: replays, reflections, guesses, stages left out.
"""

import hmac

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from panloom.protocol.chap import ChapTarget, Credentials, response
from panloom.protocol.iscsi_login import AskAdmission, AskCredentials, IscsiLogin, State
from panloom.wire.iscsi import FINAL, LoginRequest
from panloom.wire.iscsi_text import decode_binary, decode_text, encode_text

NAMES = {
    "InitiatorName": "iqn.2026-11.dev.panloom:node.n1",
    "TargetName": "iqn.2026-11.dev.panloom:shop.web1",
    "SessionType": "Normal",
}
WANTED = Credentials("web1", "secret-of-web1", "target", "secret-of-target")
STAGES = (0x00, FINAL | 0x01, FINAL | 0x03, 0x04, FINAL | 0x07)


class Attack(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.logins = []
        self.challenges = []  # all that were put to anybody, whatever became of them
        self.open = set()  # of logins that are not over
        self.heard = {"CHAP_R": ["0x" + "00" * 16], "CHAP_C": ["0x" + "11" * 16], "CHAP_I": ["1"]}

    def connect(self):
        number = len(self.challenges)
        challenge = number.to_bytes(16, "big")
        self.challenges.append(challenge)
        self.open.add(challenge)
        login = IscsiLogin(identifier=number % 256, challenge=challenge, is_ours=self.open.__contains__)
        login.challenge_of_test = challenge
        return login

    def say(self, login, flags, keys):
        request = LoginRequest(
            flags=flags, isid=bytes(6), initiator_task_tag=1, cmd_sn=1, data=encode_text(list(keys.items()))
        )
        step = login.receive(request)
        while isinstance(step, AskCredentials | AskAdmission):
            step = login.may_prove((WANTED,)) if isinstance(step, AskCredentials) else login.admit(1)
        if login.state in (State.FINISHED, State.REFUSED):
            self.open.discard(login.challenge_of_test)
        answers = decode_text(step.response.data)
        for key in self.heard:
            self.heard[key] += [answers[key]] if key in answers else []
        return answers

    @rule()
    def a_machine_logs_in_properly(self):
        login = self.connect()
        self.say(login, FINAL | 1, {**NAMES, "AuthMethod": "CHAP"})
        asked = self.say(login, FINAL | 1, {"CHAP_A": "5"})
        challenge = decode_binary(asked["CHAP_C"], longest_octets=64)
        proof = "0x" + response(int(asked["CHAP_I"]), b"secret-of-web1", challenge).hex()
        own = "0x" + bytes(reversed(challenge)).hex() + "77"
        self.say(login, FINAL | 1, {"CHAP_N": "web1", "CHAP_R": proof, "CHAP_I": "9", "CHAP_C": own})
        self.say(login, FINAL | 7, {})
        assert login.state is State.FINISHED
        self.heard["CHAP_R"].append(proof)

    @rule()
    def the_attacker_is_challenged(self):
        self.the_attacker_connects(FINAL | 1, "CHAP", ahead=True)

    @rule(flags=st.sampled_from(STAGES), method=st.sampled_from(["CHAP", "None", "None,CHAP", ""]))
    def the_attacker_leaves_something_out(self, flags, method):
        self.the_attacker_connects(flags, method, ahead=False)

    def the_attacker_connects(self, flags, method, *, ahead):
        login = self.connect()
        self.logins.append(login)
        self.say(login, flags, {**NAMES, **({"AuthMethod": method} if method else {})})
        if ahead and login.state is State.CHOSEN:
            self.say(login, FINAL | 1, {"CHAP_A": "5,7"})

    @rule(data=st.data(), name=st.sampled_from(["web1", "target", ""]), asks=st.booleans())
    def the_attacker_answers_with_what_it_has_heard(self, data, name, asks):
        challenged = [login for login in self.logins if login.state is State.CHALLENGED]
        if challenged:
            keys = {"CHAP_N": name, "CHAP_R": data.draw(st.sampled_from(self.heard["CHAP_R"][-8:]))}
            if asks:
                keys |= {"CHAP_I": self.heard["CHAP_I"][-1], "CHAP_C": self.heard["CHAP_C"][-1]}
            answers = self.say(data.draw(st.sampled_from(challenged)), FINAL | 1, keys)
            assert "CHAP_R" not in answers, "the target proves itself to somebody who has not"

    @rule(data=st.data(), flags=st.sampled_from(STAGES), method=st.sampled_from(["", "None", "CHAP", "None,CHAP"]))
    def the_attacker_says_something(self, data, flags, method):
        live = [login for login in self.logins if login.state is not State.REFUSED]
        if not live:
            return
        keys = {"AuthMethod": method} if method else {}
        for key in data.draw(st.sets(st.sampled_from(["CHAP_A", "CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C"]))):
            known = {"CHAP_A": ["5", "7"], "CHAP_N": ["web1", "target"], **self.heard}[key]
            keys[key] = data.draw(st.sampled_from(known[-8:]))
        answers = self.say(data.draw(st.sampled_from(live)), flags, keys)
        assert "CHAP_R" not in answers

    @invariant()
    def nobody_is_in(self):
        assert all(login.state is not State.FINISHED for login in self.logins)
        assert all(login.proved == Credentials() for login in self.logins)


TestAttack = Attack.TestCase
TestAttack.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)


def test_every_candidate_is_compared_in_constant_time(monkeypatch):
    """How long an answer takes tells neither which name is known nor how much of a response is right."""
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or compare(a, b))
    candidates = tuple(Credentials(f"user{number}", f"secret-number-{number}") for number in range(5))
    target = ChapTarget(candidates, identifier=1, challenge=bytes(16))
    for name in ("user0", "user4", "nobody"):
        compared.clear()
        target.verify({"CHAP_N": name, "CHAP_R": "0x" + "00" * 16})
        assert len(compared) == 2 * len(candidates)
