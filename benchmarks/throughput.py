"""What a silo's trainer process costs beside the same training loop in plain PyTorch: steps a second of both, in one run.

The silo's side is the real one: a child process that reads the catalogue and the cache, and trains as in a round of
`jobs/train`. The plain side is the loop that a notebook would have: the same network, losses and augmentation, nothing
else. Both take turns, so that a busy machine harms both. On a CPU their CPU seconds are compared: what else runs on the
machine does not count. On a graphics processor it is wall-clock time.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --device cuda --backbone densenet121 --input-size 224 --precision bfloat16
"""

import argparse
import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
import yaml

from benchmarks.harness import Figure, Target, main
from silo_app import config
from silo_app.cases import Finding, PatientKey, Split
from silo_app.catalogue import Catalogue, Label, ViewKeys, ViewRecord
from silo_app.encoder.dataset import Images, load
from silo_app.encoder.devices import device_for
from silo_app.encoder.losses import contrastive_loss, findings_loss
from silo_app.encoder.model import Encoder, build
from silo_app.encoder.passes import Passes
from silo_app.encoder.settings import TrainSettings
from silo_app.encoder.spec import EncoderSpec
from silo_app.encoder.trainer import Trainer
from silo_app.encoder.transforms import augment, standardised
from silo_app.imaging.cache import RadiographCache
from silo_app.imaging.radiograph import Radiograph

VIEWS = 128
TARGETS = (Target("trainer_over_plain", 0.95, at_least=True),)


@dataclass(frozen=True)
class Turn:
    """How long one side took for its steps."""

    cpu_s: float
    wall_s: float


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """Return steps a second of both sides and their ratio, medians over the turns."""
    torch.set_num_threads(arguments.threads)
    device = device_for(arguments.device)
    torch.use_deterministic_algorithms(mode=False)  # the plain loop is as fast as it can be; ours runs in a child
    arguments.steps = arguments.steps or (8 if device.type == "cpu" else 64)
    spec = EncoderSpec(backbone=arguments.backbone, input_size=arguments.input_size)
    settings = TrainSettings(steps=arguments.steps, batch_size=arguments.batch_size, precision=arguments.precision)
    turns = 3 if arguments.quick else arguments.turns
    with tempfile.TemporaryDirectory() as folder:
        home = _silo(Path(folder), arguments)
        images = load(home, spec, split=Split.TRAIN)
        with Trainer.start(home.kit, Path(folder), threads=arguments.threads) as trainer:
            pairs = list(_turns(trainer, build(spec, 1).to(device), images, settings, spec, turns))
    figures = []
    for place, side in enumerate(("trainer", "plain")):
        for clock in ("cpu_s", "wall_s"):
            rate = statistics.median(arguments.steps / getattr(pair[place], clock) for pair in pairs)
            figures.append(Figure(f"{side}_steps_per_{clock}", rate, f"steps of {arguments.batch_size} views"))
    clock = "cpu_s" if device.type == "cpu" else "wall_s"
    ratio = statistics.median(getattr(plain, clock) / getattr(ours, clock) for ours, plain in pairs)
    return [*figures, Figure("trainer_over_plain", ratio, f"x, {'CPU' if clock == 'cpu_s' else 'wall-clock'} time")]


def _turns(
    trainer: Trainer, model: Encoder, images: Images, settings: TrainSettings, spec: EncoderSpec, turns: int
) -> Iterator[tuple[Turn, Turn]]:
    """Yield how long the trainer and the plain loop took, turn by turn; the first turn of each warms up and is left out."""
    opened = trainer.request("open", spec=spec.model_dump(mode="json"), seed=1)
    chosen = settings.model_dump(mode="json")
    for number in range(turns + 1):
        child = psutil.Process(trainer.pid)
        before, start = sum(child.cpu_times()[:2]), time.perf_counter()
        answer = trainer.request("train", weights=opened["weights"], settings=chosen, round=number, rounds=turns + 1, seed=1)
        assert answer["steps"] == settings.steps  # noqa: S101  (else two different things are compared)
        ours = Turn(sum(child.cpu_times()[:2]) - before, time.perf_counter() - start)
        before, start = time.process_time(), time.perf_counter()
        _plain(model, images, settings)
        plain = Turn(time.process_time() - before, time.perf_counter() - start)
        if number:
            yield ours, plain


def _plain(model: Encoder, images: Images, settings: TrainSettings) -> None:
    """Train as many steps as a plain loop would."""
    device = model.device
    dtype = Passes.on(device, settings.precision).dtype
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    draws, generator = np.random.default_rng(1), torch.Generator(device).manual_seed(1)
    model.train()
    for _ in range(settings.steps_for(len(images))):
        rows = draws.integers(0, len(images), settings.batch_size)
        views = torch.from_numpy(images.pixels[rows])[:, None].to(device)
        targets, known = (torch.from_numpy(part[rows]).to(device) for part in (images.targets, images.known))
        augmented = standardised(augment(views, generator))
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32):
            embedding, logits = model(augmented)
        loss = findings_loss(logits.float(), targets, known)
        loss = loss + settings.contrast * contrastive_loss(embedding.float(), targets, known, settings.temperature)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        scaler.step(optimizer)
        scaler.update()
    if device.type == "cuda":
        torch.cuda.synchronize()


def _silo(folder: Path, arguments: argparse.Namespace) -> config.SiloHome:
    """Return a silo with pictures of noise: what is in them costs no time."""
    kit = folder / "kit"
    (kit / "local").mkdir(parents=True)
    content = {"name": "alpha", "training": {"device": arguments.device}}
    (kit / "local" / "silo.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    home = config.load(kit)
    home.root.mkdir()
    draws, cache, side = np.random.default_rng(0), RadiographCache(home.cache), arguments.input_size
    with Catalogue.open(home.catalogue, create=True) as catalogue, catalogue.writing() as writer:
        for number in range(VIEWS):
            name = str(number)
            digest = hashlib.sha256(name.encode()).hexdigest()
            keys = ViewKeys(
                instance=name, study=name, study_uid=name, accession=name, patient=PatientKey(name), patient_id=name
            )
            writer.add_view(ViewRecord(digest=digest, keys=keys, split=Split.TRAIN, height=side, width=side))
            writer.relabel({digest: [Label(finding=Finding.PNEUMONIA, present=number % 2 == 0, source="benchmark")]})
            cache.write(digest, Radiograph(draws.uniform(0, 1, (side, side)).astype(np.float32)))
    return home


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="as training.device in silo.yaml")
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--backbone", default=EncoderSpec().backbone)
    parser.add_argument("--input-size", type=int, default=EncoderSpec().input_size)
    parser.add_argument("--batch-size", type=int, default=TrainSettings().batch_size)
    parser.add_argument("--steps", type=int, help="steps in one turn, as in a round; 8, or 64 on a graphics processor")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)


if __name__ == "__main__":
    sys.exit(main("throughput", measure, TARGETS, describe=str(__doc__).splitlines()[0], options=_options))
