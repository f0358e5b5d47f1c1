"""A small federation without network: a root, silos with certificates, and sessions that know each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from silo_app.aggregation.layout import Layout, digest_of
from silo_app.aggregation.protocol import SiloSession
from silo_app.aggregation.settings import AggregationSettings
from silo_app.aggregation.sums import RoundSum
from silo_app.identity import Identity, Trust

LAYOUT = Layout(("stem.weight", "stem.bias", "head"), ((7, 5), (7,), (100,)))
INITIAL = digest_of(np.zeros(LAYOUT.size, dtype=np.float32))


def name_of(common_name, role=None):
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    return x509.Name(parts + ([x509.NameAttribute(NameOID.UNSTRUCTURED_NAME, role)] if role else []))


class Root:
    """A certificate authority for tests, with fast EC keys."""

    def __init__(self, name="federation"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = name_of(name)
        self.certificate = self.issue(self.name, self.key.public_key())

    def issue(self, subject, public, *, days=(-1, 30)):
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .sign(self.key, hashes.SHA256())
        )

    def identity(self, name, *, role=None, days=(-1, 30), servers=frozenset()):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.issue(name_of(name, role), key.public_key(), days=days)
        return Identity(name, certificate, key, Trust(self.certificate, servers))


@dataclass
class Federation:
    """Sessions of several silos in one job, and the server between them."""

    root: Root
    sessions: dict[str, SiloSession]
    layout: Layout = LAYOUT
    job: str = "job-1"
    messages: list[bytes] = field(default_factory=list)
    """Everything that the server saw."""
    bundles: dict[int, dict[str, bytes]] = field(default_factory=dict)
    """The silos' mask bundles, by round."""

    def exchange(self):
        announcements = {name: session.announce() for name, session in self.sessions.items()}
        wrapped = {}
        for session in self.sessions.values():
            wrapped |= session.receive_roster(announcements)
        for name, key in wrapped.items():
            self.sessions[name].receive_key(key)
        self.messages += [*announcements.values(), *wrapped.values()]
        return self

    def begin(self, number, names=None):
        """Let the silos `names` (by default all) deal and exchange their masks of a round."""
        names = tuple(names or self.sessions)
        bundles = {name: self.sessions[name].share_secrets(number) for name in names}
        self.messages += bundles.values()
        self.bundles[number] = bundles
        for name in names:
            self.sessions[name].begin_round(number, bundles)
        return bundles

    def encrypt(self, number, name, update, numbers=None):
        """Return the message of one silo that began the round."""
        message = self.sessions[name].encrypt_update(number, update, numbers)
        self.messages.append(message.tobytes())
        return message

    def add(self, number, messages, contributors=None):
        """Return the server's sum of the messages of `contributors`."""
        total = RoundSum(self.job, number)
        for name, message in messages.items():
            if contributors is None or name in contributors:
                total.add(message, silo=name)
        result = total.result()
        self.messages.append(result.tobytes())
        return result, total.contributors

    def reveal(self, number, survivors, signers=None, revealers=None):
        """Return what `revealers` reveal after `signers` signed who arrived; by default everybody who began."""
        everyone = self.bundles[number]
        signatures = {name: self.sessions[name].sign_survivors(number, survivors) for name in signers or everyone}
        revealed = {name: self.sessions[name].reveal(number, signatures) for name in revealers or signers or everyone}
        self.messages += [*signatures.values(), *revealed.values()]
        return revealed

    def sum(self, number, updates, contributors=None):
        """Return what `open_sum` takes: message, contributors and reveals; every silo in `updates` encrypts."""
        self.begin(number)
        messages = {name: self.encrypt(number, name, update) for name, update in updates.items()}
        result, names = self.add(number, messages, contributors)
        return result, names, self.reveal(number, names)

    def statistics(self, number=0):
        """Run a round that tells everybody how many images there are."""
        self.begin(number)
        messages = {name: session.encrypt_statistics(number) for name, session in self.sessions.items()}
        result, names = self.add(number, messages)
        revealed = self.reveal(number, names)
        opened = [session.open_sum(number, result, names, revealed) for session in self.sessions.values()]
        return opened[0]

    def ready(self):
        """Exchange keys and run the statistics as round 0: rounds of updates begin with 1."""
        self.exchange().statistics()
        return self

    def updates(self, seed=0, spread=1e-3):
        """Return a random update for every silo, float32 (P,)."""
        random = np.random.default_rng(seed)
        return {name: random.normal(0, spread, self.layout.size).astype(np.float32) for name in self.sessions}

    def mean(self, updates):
        """Return the weighted mean of `updates` as plain arithmetic gives it, float64 (P,)."""
        counts = {name: self.sessions[name].samples for name in updates}
        return sum(updates[name].astype(np.float64) * count for name, count in counts.items()) / sum(counts.values())

    def round(self, number, updates, contributors=None):
        return {name: opened.update for name, opened in self.opened(number, updates, contributors).items()}

    def opened(self, number, updates, contributors=None):
        """Return what every silo opened."""
        parts = self.sum(number, updates, contributors)
        return {name: session.open_sum(number, *parts) for name, session in self.sessions.items()}


@pytest.fixture(scope="session")
def root():
    return Root()


@pytest.fixture(scope="session")
def make(root):
    """Return a function that makes a federation of silos a, b, c, ... with the given sample counts."""

    def federation(samples=(10, 20, 30), *, layout=LAYOUT, job="job-1", min_silos=2, states=None, **settings):
        """Return sessions of silo-00, silo-01, ...; call `exchange` on it to give them their key."""
        names = [f"silo-{index:02}" for index in range(len(samples))]
        sessions = {
            name: SiloSession(
                job,
                root.identity(name, servers=frozenset({"server"})),
                layout,
                initial=INITIAL,
                samples=count,
                settings=AggregationSettings(**settings),
                min_silos=min_silos,
                random=np.random.default_rng(count),
                state=states and states[name],
            )
            for name, count in zip(names, samples, strict=True)
        }
        return Federation(root, sessions, layout, job)

    return federation
