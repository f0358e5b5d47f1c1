"""What an encoder is, before it has weights: backbone, input size, embedding, findings, preprocessing."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from silo_app.cases import Finding

__all__ = ["EncoderSpec"]

_ALL = tuple(finding for finding in Finding if finding is not Finding.NO_FINDING)


class EncoderSpec(BaseModel):
    """The shape of an encoder; its digest is part of every encoder version."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: Literal["densenet121", "densenet-medium", "densenet-small", "mednext-small"] = "densenet121"
    input_size: int = Field(default=64, ge=32, le=512, multiple_of=32)
    """Side of the square that a radiograph is padded and reduced to, pixels."""
    embedding_dim: int = Field(default=256, ge=8, le=2048)
    findings: tuple[Finding, ...] = _ALL
    """The findings head's outputs, in order."""
    channels: Literal["grey", "contrasts"] = "grey"
    """What the network reads of an image: its grey levels, or also contrasts that exposure does not change
    (`silo_app.encoder.channels`)."""
    looks: Literal["kept", "removed"] = "kept"
    """Whether every silo takes its own look out of the embeddings before it indexes or asks (`silo_app.encoder.looks`)."""

    @field_validator("findings")
    @classmethod
    def _distinct(cls, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
        if not findings or len(set(findings)) != len(findings) or Finding.NO_FINDING in findings:
            raise ValueError('name each finding once, at least one, and not "No Finding"')
        return findings

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what older releases did not know, where it changes nothing: their encoders keep their digest."""
        content: dict[str, Any] = handler(self)
        for name, before in (("channels", "grey"), ("looks", "kept")):
            if content.get(name) == before:
                del content[name]
        return content
