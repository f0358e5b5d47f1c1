"""What an encrypted update of DenseNet121's size costs: bytes on the wire and seconds of one core.

First the protocol alone, on the tensors of the encoder and random updates: silos, server and sums in one process,
without network and training. CPU seconds are those of this process, so a busy machine does not spoil them much. Then,
without --quick, real federations one after the other (`benchmarks.federations`): NVFlare's FedAvg, its FedAvg with
homomorphic encryption, and ours; nothing else should run on the machine then.
"""

import argparse
import statistics
import sys
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from numpy.typing import NDArray

from benchmarks.harness import Figure, Target, main
from silo_app.aggregation.layout import Layout, digest_of
from silo_app.aggregation.protocol import SiloSession
from silo_app.aggregation.settings import AggregationSettings
from silo_app.aggregation.sums import RoundSum
from silo_app.identity import Identity, Trust

if TYPE_CHECKING:
    from benchmarks.federations import Measured

JOB = "benchmark"
SAMPLES = (1000, 2000, 3000)
"""Three silos, of so many images."""
SILOS = len(SAMPLES)
TARGETS = (
    Target("upload_ratio_12_bits", 0.52),
    Target("download_ratio_12_bits", 1.02),
    Target("codec_cpu_s_12_bits", 1.2),
    Target("silo_peak_ratio_12_bits", 2.5),
    Target("server_peak_mb_12_bits", 500),
)
FEDERATION_TARGETS = (
    Target("densenet121_ours_server_peak_mb", 500),
    Target("densenet121_round_over_plain", 1.25),
    Target("small_he_over_ours_bytes", 40.0, at_least=True),
    Target("small_he_over_ours_seconds", 10.0, at_least=True),
    Target("small_he_over_ours_server_memory", 5.0, at_least=True),
)
HE_LIMIT_S = 1200.0
TRAINED_STEPS = 20
"""Of 16 images, in the rounds that are compared whole: what a hospital of 320 images trains in an epoch."""


def densenet121() -> Layout:
    """Return the tensors of the encoder: DenseNet121 (Huang et al. 2017) with GroupNorm, 1 channel, 256-d embedding."""
    shapes: dict[str, tuple[int, ...]] = {"conv0": (64, 1, 7, 7), "norm0.weight": (64,), "norm0.bias": (64,)}
    channels = 64
    for block, layers in enumerate((6, 12, 24, 16), start=1):
        for layer in range(1, layers + 1):
            name = f"block{block}.layer{layer}"
            shapes |= {f"{name}.norm1.weight": (channels,), f"{name}.norm1.bias": (channels,)}
            shapes |= {f"{name}.conv1": (128, channels, 1, 1)}
            shapes |= {f"{name}.norm2.weight": (128,), f"{name}.norm2.bias": (128,)}
            shapes |= {f"{name}.conv2": (32, 128, 3, 3)}
            channels += 32
        shapes |= {f"norm{block}.weight": (channels,), f"norm{block}.bias": (channels,)}
        if block < 4:
            shapes |= {f"transition{block}": (channels // 2, channels, 1, 1)}
            channels //= 2
    shapes |= {"embedding.weight": (256, channels), "embedding.bias": (256,), "findings": (19, 256)}
    return Layout(tuple(shapes), tuple(shapes.values()))


def identities(count: int) -> list[Identity]:
    """Return one identity for each of `count` silos, under a root made for the occasion."""
    root_key = ec.generate_private_key(ec.SECP256R1())
    root = _certificate("root", root_key.public_key(), root_key)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(count)]
    names = [f"silo-{number}" for number in range(count)]
    return [
        Identity(name, _certificate(name, key.public_key(), root_key), key, Trust(root))
        for name, key in zip(names, keys, strict=True)
    ]


def _certificate(name: str, public: ec.EllipticCurvePublicKey, issuer: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(issuer, hashes.SHA256())
    )


def federation(
    layout: Layout, settings: AggregationSettings, counts: Sequence[int] = SAMPLES, weights: bytes = b""
) -> list[SiloSession]:
    """Return sessions of silos with so many images that have exchanged their key; `weights` is a digest of the first."""
    initial = weights or digest_of(np.zeros(layout.size, dtype=np.float32))
    sessions = [
        SiloSession(JOB, identity, layout, initial=initial, samples=samples, settings=settings)
        for identity, samples in zip(identities(len(counts)), counts, strict=True)
    ]
    announcements = {session.silo: session.announce() for session in sessions}
    wrapped: dict[str, bytes] = {}
    for session in sessions:
        wrapped |= session.receive_roster(announcements)
    for session in sessions:
        if session.silo in wrapped:
            session.receive_key(wrapped[session.silo])
    return sessions


class Stopwatch:
    """CPU seconds by what they were spent on."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the block's CPU seconds."""
        start = time.process_time()
        yield
        self.spent.setdefault(what, []).append(time.process_time() - start)

    def median(self, what: str) -> float:
        """Return the median of what one call took."""
        return statistics.median(self.spent[what])


def one_round(
    sessions: list[SiloSession], number: int, random: np.random.Generator, watch: Stopwatch
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Run a round; return one silo's update and the sum, as they travel."""
    total = RoundSum(JOB, number)
    names = [session.silo for session in sessions]
    begin(sessions, number, watch)
    for session in sessions:
        update = random.normal(0.0, 1e-3, session.layout.size).astype(np.float32)
        with watch.on("encrypt"):
            message = session.encrypt_update(number, update)
        with watch.on("add"):
            total.add(message)
    with watch.on("result"):
        result = total.result()
    with watch.on("agree"):
        signatures = {session.silo: session.sign_survivors(number, names) for session in sessions}
        reveals = {session.silo: session.reveal(number, signatures) for session in sessions}
    for session in sessions:
        with watch.on("open"):
            session.open_sum(number, result, total.contributors, reveals)
    return message, result


def begin(sessions: list[SiloSession], number: int, watch: Stopwatch) -> None:
    """Let all silos deal and exchange their masks."""
    with watch.on("share"):
        bundles = {session.silo: session.share_secrets(number) for session in sessions}
        for session in sessions:
            session.begin_round(number, bundles)


def server_peak(sessions: list[SiloSession], number: int, random: np.random.Generator) -> float:
    """Return the server's peak memory in a round, in MB, beyond the one message that arrives."""
    begin(sessions, number, Stopwatch())
    updates = random.normal(0.0, 1e-3, sessions[0].layout.size).astype(np.float32)
    messages = [session.encrypt_update(number, updates) for session in sessions]
    tracemalloc.start()
    total = RoundSum(JOB, number)
    for message in messages:
        total.add(message)
    total.result()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return (peak + messages[0].nbytes) / 1e6


def silo_peak(sessions: list[SiloSession], number: int, random: np.random.Generator) -> float:
    """Return how much memory a silo needs to encrypt and to open, in MB, beyond the update and the messages."""
    names = [session.silo for session in sessions]
    begin(sessions, number, Stopwatch())
    update = random.normal(0.0, 1e-3, sessions[0].layout.size).astype(np.float32)
    messages = [session.encrypt_update(number, update) for session in sessions[1:]]
    tracemalloc.start()
    messages.append(sessions[0].encrypt_update(number, update))
    peaks = [tracemalloc.get_traced_memory()[1]]
    tracemalloc.stop()
    total = RoundSum(JOB, number)
    for message in messages:
        total.add(message)
    signatures = {session.silo: session.sign_survivors(number, names) for session in sessions}
    reveals = {session.silo: session.reveal(number, signatures) for session in sessions}
    result = total.result()
    tracemalloc.start()
    for session in sessions:
        session.open_sum(number, result, names, reveals)
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    return max(peaks[:2]) / 1e6


def figures_of(layout: Layout, bits: int, rounds: int) -> list[Figure]:
    """Measure the rounds after the first with fields of `bits` bits."""
    random = np.random.default_rng(0)
    sessions = federation(layout, AggregationSettings(bits=bits))
    one_round(sessions, 0, random, Stopwatch())
    watch = Stopwatch()
    for number in range(1, rounds + 1):
        update, result = one_round(sessions, number, random, watch)
    plain = 4 * layout.size
    seconds = {what: watch.median(what) for what in watch.spent}
    return [
        Figure(f"upload_mb_{bits}_bits", update.nbytes / 1e6, "MB"),
        Figure(f"upload_ratio_{bits}_bits", update.nbytes / plain, "x float32"),
        Figure(f"download_ratio_{bits}_bits", result.nbytes / plain, "x float32"),
        Figure(f"encrypt_cpu_s_{bits}_bits", seconds["encrypt"], "s"),
        Figure(f"open_cpu_s_{bits}_bits", seconds["open"], "s"),
        Figure(f"masks_agree_cpu_s_{bits}_bits", (seconds["share"] + seconds["agree"]) / len(sessions), "s"),
        Figure(f"codec_cpu_s_{bits}_bits", seconds["encrypt"] + seconds["open"], "s"),
        Figure(f"server_add_cpu_s_{bits}_bits", seconds["add"], "s"),
        Figure(f"silo_peak_ratio_{bits}_bits", silo_peak(sessions, rounds + 1, random) * 1e6 / plain, "x float32"),
        Figure(f"server_peak_mb_{bits}_bits", server_peak(sessions, rounds + 2, random), "MB"),
    ]


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Measure field widths, 12 bits first, since the targets speak of it."""
    layout = densenet121()
    widths, rounds = ((12,), 1) if arguments.quick else ((12, 16, 10, 25), 3)
    figures = [Figure("values", layout.size, "float32"), Figure("silos", len(SAMPLES), "")]
    figures += [figure for bits in widths for figure in figures_of(layout, bits, rounds)]
    return figures if arguments.quick else figures + federations_side_by_side()


def federations_side_by_side() -> list[Figure]:
    """Measure real federations: NVFlare's plain and encrypted averaging and ours, on a small and on the usual encoder.

    NVFlare's encryption is not tried on DenseNet121: an update of it weighs 1,019 MB, and a machine of 24 GB has never
    finished a round (docs/decisions/0001-own-encrypted-aggregation.md).
    """
    from benchmarks.federations import ours, stock

    fields: dict[str, object] = {"field_bits": 12}
    trained: dict[str, object] = {"training.steps": TRAINED_STEPS, "training.batch_size": 16}
    small = {
        "plain": stock("densenet-small", encrypted=False, rounds=6, limit_s=HE_LIMIT_S),
        "he": stock("densenet-small", encrypted=True, rounds=3, limit_s=HE_LIMIT_S),
        "ours": ours("densenet-small", settings=fields, rounds=6),
    }
    usual = {
        "plain": stock("densenet121", encrypted=False, rounds=5, limit_s=HE_LIMIT_S),
        "ours_plain": ours("densenet121", settings={"encryption": "none", **trained}, rounds=5),
        "ours": ours("densenet121", settings=fields | trained, rounds=5),
    }
    he, own = small["he"], small["ours"]
    return [
        *(figure for way, one in small.items() for figure in _figures(f"small_{way}", one)),
        Figure("small_he_over_ours_bytes", he.megabytes / own.megabytes, "x"),
        Figure("small_he_over_ours_seconds", he.seconds / own.seconds, "x"),
        Figure("small_he_over_ours_server_memory", he.server_peak_mb / own.server_peak_mb, "x"),
        *(figure for way, one in usual.items() for figure in _figures(f"densenet121_{way}", one)),
        Figure("densenet121_round_over_plain", usual["ours"].whole_seconds / usual["ours_plain"].whole_seconds, "x"),
    ]


def _figures(name: str, one: "Measured") -> list[Figure]:
    return [
        Figure(f"{name}_round_s", one.seconds, "s, without training"),
        Figure(f"{name}_whole_round_s", one.whole_seconds, "s, with training"),
        Figure(f"{name}_round_cpu_s", one.cpu_seconds, "CPU s, all processes"),
        Figure(f"{name}_mb", one.megabytes, "MB, a silo up and down"),
        Figure(f"{name}_server_peak_mb", one.server_peak_mb, "MB"),
        Figure(f"{name}_silo_peak_mb", one.site_peak_mb, "MB"),
    ]


def wanted(arguments: argparse.Namespace) -> tuple[Target, ...]:
    """Return the targets; those of real federations are for the whole benchmark only, which takes a quarter of an hour."""
    return TARGETS if arguments.quick else TARGETS + FEDERATION_TARGETS


if __name__ == "__main__":
    sys.exit(main("aggregation", measure, wanted, describe=str(__doc__).splitlines()[0]))
