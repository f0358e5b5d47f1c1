"""`silo index`: make the silo's cases searchable."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from silo_app.cli.edge import FormatOption, OutputFormat, SiloOption, emit, people
from silo_app.config import SiloHome, load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from silo_app.encoder.embed import LoadedEncoder
    from silo_app.index.manifest import GenerationInfo

_TAKEN_WITHIN_S = 10.0
_NAMED = 10
"""Cases that one line names at most."""

app = typer.Typer(no_args_is_help=True, help="The silo's searchable index: build it, look at it.")


_WAIT_S = 3600.0
"""For a build that runs already, mostly one of `silo serve`: what it has embedded is not embedded again."""
OnlyNewOption = Annotated[
    bool,
    typer.Option(
        "--only-new",
        help="Only if the index in use is of this encoder and lacks images of the catalogue, and nobody else builds: what "
        "`silo serve` does by itself.",
    ),
]


@app.command()
def build(
    silo: SiloOption,
    only_new: OnlyNewOption = False,  # noqa: FBT002  (a flag)
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Embed every image of the catalogue with the silo's current encoder and publish a new generation.

    Images that this encoder has embedded before are not embedded again; one that the cache lost is decoded again first, or
    left out and named where its source does not have it. A search that runs goes on with the old
    generation and takes the new one by itself; this command ends when it has, so that the next query finds it. While
    `silo serve` runs, it adds new images without being told; a build that runs meanwhile is waited for.

    Examples:
        silo index build --silo kits/st-anna

        silo index build --silo kits/st-anna --format json
    """
    from silo_app.encoder.embed import load_encoder
    from silo_app.index.build import build_generation

    home = load(silo)
    encoder = load_encoder(home.models, device=home.config.training.device)
    wait_s = 0.0 if only_new else _told_to_wait(home)
    with _progress() as tell:
        report = build_generation(
            home,
            encoder.version,
            _embedder(home, encoder),
            tell,
            head=encoder.head,
            only_new=only_new,
            wait_s=wait_s,
        )
    info = report.info
    _print_lacking([view.case for view in report.lacking])
    taken = _taken(home, info.generation)
    if info.kind == "milvus" and (taken or not _runs(home)):
        _leave_milvus(home, wait_s)
    data = {
        "generation": info.generation,
        "encoder_version": info.encoder_version,
        "cases": info.cases,
        "views": info.views,
        "embedded": report.embedded,
        "reused": report.reused,
        "lacking": len(report.lacking),  # a number: `jobs/index` sends this to the server
        "seconds": round(report.seconds, 3),
        "taken": taken,
    }
    emit(data, output, _print_built)


@app.command()
def status(silo: SiloOption, output: FormatOption = OutputFormat.TABLE) -> None:
    """Show which generation answers, whether it is sound, and whether it fits the silo's encoder and catalogue.

    Examples:
        silo index status --silo kits/st-anna
    """
    from silo_app.encoder.checkpoint import current_version
    from silo_app.errors import NotReady
    from silo_app.index.generations import open_current
    from silo_app.index.known import not_indexed
    from silo_app.index.storage import Storage

    home = load(silo)
    opened = open_current(home.index, Storage.of(home))
    try:
        encoder = str(current_version(home.models))
    except NotReady:
        encoder = ""
    data = {
        **opened.info.model_dump(exclude={"files", "format"}),
        "damaged": list(opened.skipped),
        "current_encoder": encoder,
        "fits_encoder": encoder == opened.info.encoder_version,
        "not_indexed": not_indexed(home, opened),
        "left_in_milvus": _left_in_milvus(home, opened.info),
    }
    emit(data, output, _print_status)


@app.command()
def move(silo: SiloOption, output: FormatOption = OutputFormat.TABLE) -> None:
    """Take the index in use over to where silo.yaml now says that vectors are held; nothing is embedded again.

    Change `index.held_in` (and `index.milvus`, or `index.exact_up_to`) in silo.yaml, then run this. Searches go on
    with the old generation until the new one is whole. After a move out of Milvus, what it holds of this silo is dropped
    as soon as the index process has opened the new generation; leave `index.milvus` in silo.yaml until then.

    Examples:
        silo index move --silo kits/st-anna
    """
    from silo_app.index.build import move_generation

    home = load(silo)
    wait_s = _told_to_wait(home)
    with people.status("writing the vectors"):
        info = move_generation(home, wait_s=wait_s)
    data = {"generation": info.generation, "kind": info.kind, "cases": info.cases, "views": info.views}
    data["taken"] = _taken(home, info.generation)
    if info.kind != "milvus":
        if data["taken"] or not _runs(home):
            _leave_milvus(home, wait_s)
        data["left_in_milvus"] = _left_in_milvus(home, info)
    emit(data, output, _print_moved)


def _leave_milvus(home: SiloHome, wait_s: float) -> None:
    """Drop what Milvus still holds of this silo for nothing; say so where it does not answer."""
    from silo_app.errors import NotReady
    from silo_app.index.build import leave_milvus

    try:
        leave_milvus(home, wait_s=wait_s)
    except NotReady as error:
        people.print(f"What Milvus holds of this silo for nothing is still there: {error}", highlight=False, soft_wrap=True)


def _left_in_milvus(home: SiloHome, info: "GenerationInfo") -> list[str] | None:
    """Return the collections that nothing needs, or None if Milvus does not say."""
    from silo_app.errors import NotReady
    from silo_app.index.generations import left_in_milvus
    from silo_app.index.storage import Storage

    try:
        return left_in_milvus(home.index, Storage.of(home), info)
    except NotReady:
        return None


def _runs(home: SiloHome) -> bool:
    """Whether an index process of this silo answers, which may search in the old generation."""
    from silo_app.errors import ProcessFailed
    from silo_app.search.standing import open_generation

    try:
        open_generation(home)
    except ProcessFailed:
        return False
    return True


def _told_to_wait(home: SiloHome) -> float:
    """Return for how long a build that runs already is waited for; say so if there is one."""
    from silo_app.index.generations import is_building

    if is_building(home.index):
        people.print("Another process builds this silo's index: waiting until it is done.", highlight=False, soft_wrap=True)
    return _WAIT_S


def _taken(home: SiloHome, generation: str) -> bool:
    """Wait until the running index process answers from the new generation; say so where it does not."""
    from silo_app.errors import ProcessFailed
    from silo_app.search.standing import wait_until_taken

    try:
        with people.status("waiting for the index process"):
            taken = wait_until_taken(home, generation, timeout_s=_TAKEN_WITHIN_S)
    except ProcessFailed:
        people.print("No index process of this silo runs: `silo serve` starts it.", highlight=False, soft_wrap=True)
        return False
    if not taken:
        people.print(
            f"The index process has not opened generation {generation} within {_TAKEN_WITHIN_S:.0f} s: until it has, it "
            "answers from the one before. Its log says why, if it cannot.",
            highlight=False,
            soft_wrap=True,
        )
    return taken


def _embedder(home: SiloHome, encoder: "LoadedEncoder") -> Any:
    from silo_app.imaging.cache import RadiographCache

    cache = RadiographCache(home.cache)

    def embed(digests: Sequence[str]) -> "NDArray[np.float32]":
        return encoder.radiographs([cache.read(digest) for digest in digests])

    return embed


@contextmanager
def _progress() -> Iterator[Any]:
    columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=people, transient=True) as bar:
        task = bar.add_task("embedding", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_built(data: dict[str, Any]) -> None:
    Console().print(
        f"generation {data['generation']}: {data['cases']} cases, {data['views']} views "
        f"({data['embedded']} embedded, {data['reused']} taken over) in {data['seconds']:.1f} s, "
        f"encoder {data['encoder_version'][:12]}",
        highlight=False,
        soft_wrap=True,
    )


def _print_lacking(cases: list[str]) -> None:
    """Say which images are not in the index."""
    if not cases:
        return
    named = list(dict.fromkeys(cases))
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    people.print(
        f"{len(cases)} images are not searchable: the cache lacks them, and their source does not give them now "
        f"(cases {', '.join(named[:_NAMED])}{more}). Run `silo ingest`: it decodes them again, or says why not.",
        style="yellow",
        highlight=False,
        soft_wrap=True,
    )


def _print_moved(data: dict[str, Any]) -> None:
    Console().print(
        f"generation {data['generation']}: {data['cases']} cases, {data['views']} views, held as {data['kind']}",
        highlight=False,
        soft_wrap=True,
    )
    _print_left(data.get("left_in_milvus", []))


def _print_status(data: dict[str, Any]) -> None:
    screen = Console()
    screen.print(
        f"generation {data['generation']} of {data['created']}: {data['cases']} cases, {data['views']} views, "
        f"{data['dimension']} numbers each ({data['kind']}), encoder {data['encoder_version'][:12]}",
        highlight=False,
        soft_wrap=True,
    )
    if not data["fits_encoder"]:
        named = data["current_encoder"][:12] or "none"
        people.print(f"The silo's current encoder is {named}: run `silo index build`.", highlight=False, soft_wrap=True)
    if data["not_indexed"]:
        people.print(
            f"{data['not_indexed']} views are not indexed yet: run `silo index build`.", highlight=False, soft_wrap=True
        )
    for name in data["damaged"]:
        people.print(
            f"Generation {name} is damaged and is not used: run `silo index build`.", highlight=False, soft_wrap=True
        )
    _print_left(data["left_in_milvus"])


def _print_left(collections: list[str] | None) -> None:
    """Say what of this silo is on a server that nothing needs there."""
    if collections is None:
        people.print(
            "Milvus does not answer: what it still holds of this silo is not known.", highlight=False, soft_wrap=True
        )
    elif collections:
        people.print(
            f"Left in Milvus: {', '.join(collections)}. Leave index.milvus in silo.yaml (or name the server again) and run "
            "`silo index move`: it drops them.",
            highlight=False,
            soft_wrap=True,
        )
