"""A federation without a network: certificates, silos with galleries, and a transport that fails on demand."""

import datetime as dt
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from silo_app.cases import CaseId, EncoderVersion, Finding, PatientKey, Sex, Split, View, ViewPosition
from silo_app.catalogue import Catalogue, FileRecord, Label, ViewKeys, ViewRecord
from silo_app.config import ReleaseSettings, SiloHome, load
from silo_app.identity import Identity
from silo_app.index.build import build_generation
from silo_app.index.gallery import exact_scores, rank_cases
from silo_app.search.answer import SearchableCases, answer
from silo_app.search.envelope import open_request, peek_request, seal, seal_reply
from silo_app.search.messages import Refusal, SearchRequest, SearchResult, SiloAnswer, unit_embedding
from silo_app.search.parcels import Content, Parcel, is_parcel, pack, unpack
from silo_app.search.transport import SiloLate, SiloUnreachable
from silo_app.search.verified import verified

ENCODER = EncoderVersion("ab" * 32)
DIMENSION = 16
SHOWS_ALL = "release: {same_patient: show, similar_queries_per_day: 100000}\n"
"""The guard is tested by itself (test_guard.py); everything else is compared with brute force over all cases."""


@dataclass
class Authority:
    """A root certificate, and kits that it certified."""

    folder: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    kits: dict[str, Path] = field(default_factory=dict)
    identities: dict[str, Identity] = field(default_factory=dict)
    """Each as one process has it: what is sealed for its session, no other session opens."""

    def __post_init__(self):
        self.root = self._certificate("root", self.key.public_key(), ca=True)

    def kit(self, name: str, role: str = "") -> Path:
        if name not in self.kits:
            self.kits[name] = self._make_kit(name, role)
        return self.kits[name]

    def identity(self, name: str, role: str = "") -> Identity:
        if name not in self.identities:
            self.identities[name] = Identity.load(self.kit(name, role))
        return self.identities[name]

    def _make_kit(self, name: str, role: str) -> Path:
        kit = self.folder / name
        startup = kit / "startup"
        startup.mkdir(parents=True)
        key = ec.generate_private_key(ec.SECP256R1())
        pem = serialization.Encoding.PEM
        (startup / "rootCA.pem").write_bytes(self.root.public_bytes(pem))
        (startup / "client.crt").write_bytes(self._certificate(name, key.public_key(), role=role).public_bytes(pem))
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (startup / "client.key").write_bytes(private)
        (startup / "client.key").chmod(0o600)
        (kit / "local").mkdir()
        (kit / "local" / "silo.yaml").write_text(f"name: {name}\n")
        return kit

    def _certificate(self, name: str, public, *, ca: bool = False, role: str = "") -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(_subject(name, role))
            .issuer_name(_subject("root"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )


def _subject(name: str, role: str = "") -> x509.Name:
    roles = [x509.NameAttribute(x509.NameOID.UNSTRUCTURED_NAME, role)] if role else []
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name), *roles])


class BruteForceGallery:
    """The `GalleryIndex` contract, by definition: every score, sorted."""

    def __init__(self, vectors, cases):
        self.stored = np.asarray(vectors, np.float32).astype(np.float16).astype(np.float32)  # (n, D)
        self.names = list(cases)

    @property
    def dimension(self):
        return self.stored.shape[1]

    @property
    def views(self):
        return len(self.stored)

    @property
    def cases(self):
        return len(set(self.names))

    def case_of(self, row):
        return self.names[row]

    def vectors(self, rows):
        return self.stored[rows]

    def search(self, query, k):
        return rank_cases(self.names, exact_scores(self.stored, query), k)

    def search_among(self, query, k, rows):
        return rank_cases([self.names[row] for row in rows], exact_scores(self.stored[rows], query), k)

    @property
    def row_cases(self):
        return np.frombuffer(bytes.fromhex("".join(self.names)), np.uint8).reshape(-1, 16)

    def rows_of(self, cases):
        return np.array([row for row, name in enumerate(self.names) if name in set(cases)], np.int64)

    def search_many(self, queries, counts, enough=()):
        """As short lists as the contract allows."""
        found = [self.search(query, k) for query, k in zip(queries, counts, strict=True)]
        if not enough:
            return found
        ends = [
            part and sum(hit.score >= part.similarity for hit in hits) + part.more
            for part, hits in zip(enough, found, strict=True)
        ]
        return [hits[:end] for hits, end in zip(found, ends, strict=True)]


def unit_rows(rng, count, dimension=DIMENSION):
    vectors = rng.standard_normal((count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_view(case: str, **fields) -> View:
    known = {
        "digest": "0" * 64,
        "case": CaseId(case),
        "patient": PatientKey(f"secret-patient-{case}"),
        "split": Split.TRAIN,
        "position": ViewPosition.PA,
        "sex": Sex.FEMALE,
        "age": 47,
        "study_year": 2019,
        "device": "secret-device",
        "findings": {Finding.PNEUMONIA: True, Finding.MASS: False},
    }
    return View(**(known | fields))


@dataclass
class SimulatedSilo:
    """A silo in this process, answering signed requests as the index process does, without sockets."""

    name: str
    gallery: BruteForceGallery
    identity: Identity
    encoder: EncoderVersion = ENCODER
    settings: ReleaseSettings = field(
        default_factory=lambda: ReleaseSettings(min_gallery=1, max_hits=1000, same_patient="show")
    )

    def handle(self, frame: bytes) -> bytes:
        if is_parcel(frame):
            contents = unpack(frame).contents
            return pack(Parcel(tuple(Content(content.number, self.handle(content.body)) for content in contents)))
        request = open_request(self.identity.trust, frame)
        return seal_reply(self.identity, frame, self.answered(request))

    def answered(self, request: SearchRequest) -> SiloAnswer | Refusal:
        cases = SearchableCases(generation="000001", encoder_version=self.encoder, index=self.gallery)
        return answer(request, cases, silo=self.name, view_of=make_view, settings=self.settings)


@dataclass
class SimulatedTransport:
    """The production interface over silos in this process; `behaviour` makes one late, gone or mad.

    Who behaves so gets one query that travels alone without its parcel, and `parcels` has what came.
    """

    handlers: Mapping[str, Callable[[bytes], bytes]]
    behaviour: dict[str, Callable[[bytes, float], bytes]] = field(default_factory=dict)
    parcels: list[tuple[str, Parcel, float]] = field(default_factory=list)

    def ask(self, silo: str, message: bytes, budget_s: float) -> bytes:
        contents = unpack(message).contents
        self.parcels.append((silo, Parcel(contents), budget_s))
        if silo not in self.behaviour:
            return self.handlers[silo](message)
        if len(contents) != 1:
            return self.behaviour[silo](message, budget_s)
        reply = self.behaviour[silo](contents[0].body, budget_s)
        return pack(Parcel((Content(contents[0].number, reply),)))


def is_late(_message: bytes, budget_s: float) -> bytes:
    time.sleep(budget_s)
    raise SiloLate


def is_gone(_message: bytes, _budget_s: float) -> bytes:
    raise SiloUnreachable


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("kits"))


@pytest.fixture
def silos(authority) -> dict[str, SimulatedSilo]:
    rng = np.random.default_rng(7)
    made = {}
    for name in ("north", "south", "west"):
        cases = [rng.bytes(16).hex() for _ in range(20)]
        gallery = BruteForceGallery(unit_rows(rng, 30), [cases[i % 20] for i in range(30)])
        made[name] = SimulatedSilo(name, gallery, authority.identity(name))
    return made


@pytest.fixture
def transport(silos) -> SimulatedTransport:
    return SimulatedTransport({name: silo.handle for name, silo in silos.items()})


@pytest.fixture
def request_of(authority):
    """Make a request of `north`; fields can be given."""

    def make(vector=None, **fields) -> SearchRequest:
        vector = unit_rows(np.random.default_rng(1), 1)[0] if vector is None else vector
        known = {
            "issued_at_ms": int(time.time() * 1000),
            "budget_ms": 1000,
            "encoder_version": ENCODER,
            "vector": unit_embedding(vector),
            "k": 10,
            "purpose": "care",
            "asker": "north",
        }
        return SearchRequest(**(known | fields))

    return make


@pytest.fixture
def sealed(authority, request_of):
    """Make a signed request of `north`."""
    return lambda vector=None, **fields: seal(authority.identity("north"), request_of(vector, **fields))


@pytest.fixture
def opened(authority):
    """Read what a broker returned for a signed request of `north`, as the asker does."""

    def read(frame: bytes, result: SearchResult) -> SearchResult:
        return verified(authority.identity("north"), peek_request(frame), frame, result)

    return read


@pytest.fixture
def faults():
    """The ways in which a simulated silo fails."""
    return {"late": is_late, "gone": is_gone}


@pytest.fixture(scope="session")
def a_view():
    """Make a view of a case, as a catalogue would."""
    return make_view


@dataclass
class StockedSilo:
    """A silo's kit on disk, with a catalogue and (by `index`) generations, as ingest and `silo index build` make them."""

    home: SiloHome
    vectors: dict[str, np.ndarray] = field(default_factory=dict)

    def stock(self, seed: int, patients: int, studies: int = 1) -> None:
        rng = np.random.default_rng(seed)
        self.home.catalogue.parent.mkdir(parents=True, exist_ok=True)
        with Catalogue.open(self.home.catalogue, create=True) as catalogue, catalogue.writing() as writer:
            for number in range(patients * studies):
                digest, patient, study = rng.bytes(32).hex(), f"p{seed}-{number // studies}", f"s{seed}-{number}"
                keys = ViewKeys(
                    instance=digest,
                    study=study,
                    study_uid=study,
                    accession=study,
                    patient=PatientKey(patient),
                    patient_id=patient,
                )
                record = ViewRecord(
                    digest=digest, keys=keys, split=Split.TRAIN, position=ViewPosition.PA, age=40, device="secret-device"
                )
                writer.add_view(record)
                writer.record_file(FileRecord(source="/secret", path=digest, size=1, mtime_ns=1, recipe="r", digest=digest))
                writer.relabel({digest: [Label(finding=Finding.PNEUMONIA, present=number % 2 == 0, source="csv")]})
                self.vectors[digest] = unit_rows(rng, 1)[0]

    def recall(self, digest: str) -> None:
        with Catalogue.open(self.home.catalogue) as catalogue, catalogue.writing() as writer:
            writer.forget_files("/secret", [digest])
            writer.drop_orphans()

    def index(self, encoder: str = ENCODER):
        return build_generation(self.home, EncoderVersion(encoder), self.embed)

    def embed(self, digests):
        return np.stack([self.vectors[digest] for digest in digests])


@pytest.fixture
def stocked(tmp_path):
    """Make a silo with 20 cases in its catalogue, in a federation of its own."""
    federation = Authority(tmp_path / "kits")

    def make(name: str = "south", cases: int = 20, studies: int = 1, config: str = "") -> StockedSilo:
        kit = federation.kit(name)
        (kit / "local" / "silo.yaml").write_text(f"name: {name}\n{config or SHOWS_ALL}")
        silo = StockedSilo(load(kit))
        if cases:
            silo.stock(len(name), cases // studies, studies)
        return silo

    make.federation = federation
    return make
