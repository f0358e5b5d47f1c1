"""`silo explain`: two images of this machine, and which places of them make their similarity."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from silo_app.cli.edge import FormatOption, HtmlOption, OutputFormat, SiloOption, emit, write_asked_page
from silo_app.config import load


def explain(
    first: Annotated[Path, typer.Argument(help="A DICOM file; it is read here and goes nowhere.", show_default=False)],
    second: Annotated[Path, typer.Argument(help="The DICOM file that it is compared with.", show_default=False)],
    silo: SiloOption,
    html: HtmlOption = None,
    output: FormatOption = OutputFormat.TABLE,
) -> None:
    """Show where the similarity of two images lies, as the silo's searches see them.

    Each place of an image has a share in the cosine similarity, and their mean is the similarity, exactly. The page draws
    them over the images; it holds images of patients, and only this account can read it.

    Examples:
        silo explain first.dcm second.dcm --silo kits/st-anna --html why.html
    """
    from silo_app.imaging.cache import as_cached
    from silo_app.imaging.radiograph import read_radiograph
    from silo_app.search.own_encoder import own_encoder
    from silo_app.search.why import explained

    encoder = own_encoder(load(silo))
    one, other = explained(encoder, *(as_cached(read_radiograph(path)) for path in (first, second)))
    data = {
        "similarity": round(one.similarity, 6),
        "encoder_version": encoder.version,
        "first": one.shares.round(6).tolist(),
        "second": other.shares.round(6).tolist(),
    }
    emit(data, output, _print)
    if html is not None:
        from silo_app.pages.why import explain_page

        write_asked_page(html, lambda: explain_page(data, one, other))


def _print(data: dict[str, Any]) -> None:
    screen = Console()
    screen.print(f"similarity {data['similarity']:.4f}, encoder {data['encoder_version'][:12]}", highlight=False)
    for name in ("first", "second"):
        screen.print()
        screen.print(f"shares of the {name} image's places, padded to a square", highlight=False)
        for row in data[name]:
            screen.print("".join(f"{share:8.3f}" for share in row), highlight=False)
