"""The plan of `jobs/train` as it stands, so that what is measured is what a researcher submits."""

import argparse
from collections.abc import Mapping
from typing import Any

from silo_app.cli.job import parse_settings
from silo_app.encoder import default_job
from silo_app.encoder.plan import TrainingPlan
from silo_app.errors import ConfigInvalid

__all__ = ["add_settings", "asked_plan", "default_plan"]


def default_plan(
    *, seed: int, epochs: float, rounds: int | None = None, settings: Mapping[str, Any] | None = None
) -> TrainingPlan:
    """Return the default job's plan with `epochs` passes over the images in all its rounds together, or in `rounds`.

    `settings` stand in the place of the job's, by dotted names ("training.squares").
    """
    asked = dict(settings or {})
    rounds = rounds or default_job.default_plan(asked).rounds
    return default_job.default_plan({**asked, "rounds": rounds, "seed": seed, "training.epochs": epochs / rounds})


def asked_plan(arguments: argparse.Namespace, *, seed: int, quick: tuple[float, int]) -> TrainingPlan:
    """Return the default job's plan as the command line asks for it; with `--quick`, of these epochs and rounds."""
    epochs, rounds = quick if arguments.quick else (arguments.epochs, None)
    return default_plan(seed=seed, epochs=epochs, rounds=rounds, settings=arguments.settings)


class _Settings(argparse.Action):
    """Reads settings as `silo job submit --set` does."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        try:
            setattr(namespace, self.dest, parse_settings(values))
        except ConfigInvalid as error:
            parser.error(str(error))


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Let a benchmark train with other settings than the job's."""
    parser.add_argument(
        "--set",
        nargs="+",
        action=_Settings,
        default={},
        dest="settings",
        metavar="NAME=VALUE",
        help="in place of the job's, as `silo job submit jobs/train --set` takes them",
    )
