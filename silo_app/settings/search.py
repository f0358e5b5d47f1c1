"""How a silo's vectors are held, and which encrypted queries it answers."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from silo_app.settings.base import Settings

__all__ = ["IndexSettings", "MilvusSettings", "PrivateSettings"]


class PrivateSettings(Settings):
    """Queries that this silo scores without being able to read them (docs/explanation-private-search.md).

    Whoever asks so sees the similarity of every case to the query, so that as many queries as an embedding has numbers
    could solve for the embeddings: hence the noise, the budget, and that nobody is answered unless the silo says so.
    """

    answer: bool = False
    """Whether this silo answers private queries; not while `min_similarity` is set, which it could not enforce."""
    queries_per_day: int = Field(default=50, ge=0)
    """How many of them each silo may ask in a day (UTC)."""
    noise: float = Field(default=0.0001, ge=0, le=0.01)
    """The largest change of each similarity at random; what it costs in exactness is measured by `benchmarks/search.py`.

    It hides last digits, not embeddings: the budget is what keeps these.
    """
    max_views: int = Field(default=250_000, ge=1, le=270_000)
    """A larger gallery answers no private queries: an answer is 15 bytes a view, a message 4 MiB."""
    processes: int = Field(default=2, ge=1, le=64)
    """How many processes score; each holds its share of the gallery, prepared, 4 kB a view of 256 numbers in all."""


class MilvusSettings(Settings):
    """A Milvus server that holds the silo's vectors, when one machine is not enough."""

    uri: str = Field(min_length=1)
    """https://host:19530 of a server, or a file relative to the kit (milvus-lite: for trials, one process at a time)."""
    token_file: Path | None = None
    """A private file (0600) that holds the token, "user:password" or a key; relative to the kit."""
    index_type: Literal["FLAT", "HNSW", "AUTOINDEX"] = "FLAT"
    """What Milvus finds candidates with: FLAT is exact, HNSW and AUTOINDEX are not."""
    timeout_s: float = Field(default=10.0, gt=0, le=600)
    """How long one call may take; to load or seal a whole gallery, ten minutes at least."""


class IndexSettings(Settings):
    """How this silo's vectors are held, and kept up; `silo index move` takes an index over to changed settings."""

    keep_up: bool = True
    """Whether `silo serve` embeds what the catalogue has new and publishes it, with the encoder of the index in use: new
    images are then found within a minute of their ingest. The first index, and one with another encoder, is never made
    so."""
    exact_up_to: int = Field(default=2_000_000, ge=0)
    """Views up to which every query is compared with all of them; above, inverted lists find the candidates."""
    held_in: Literal["files", "milvus"] = "files"
    """Where new generations go: files of the silo (FAISS), or the Milvus server below."""
    milvus: MilvusSettings | None = None
    """The Milvus server; leave it here after a move back to files, until `silo index status` says that nothing is
    left there."""

    @model_validator(mode="after")
    def _names_its_server(self) -> Self:
        if self.held_in == "milvus" and self.milvus is None:
            raise ValueError("held_in is milvus, and no server is named (milvus.uri)")
        return self
