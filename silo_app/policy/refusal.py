"""Why a silo does not answer a query: a closed list of codes, each with the one sentence that may leave the silo."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

__all__ = ["PUBLIC", "RefusalCode"]


class RefusalCode(StrEnum):
    """What a refusal says; nothing else about the reason travels."""

    ASKER = "asker-not-allowed"
    BUDGET = "budget-spent"
    BUSY = "busy"
    COUNT = "count-not-answered"
    FILTER = "filter-not-allowed"
    GALLERY_TOO_SMALL = "gallery-too-small"
    INDEX_DAMAGED = "index-damaged"
    INTERNAL = "internal"
    MESSAGE_INVALID = "message-invalid"
    NOT_ANSWERING = "not-answering"
    NOT_READY = "not-ready"
    OTHER_ENCODER = "other-encoder"
    OTHER_KEY = "other-key"
    PRIVATE = "private-not-answered"
    PURPOSE = "purpose-not-allowed"
    REPEATED = "repeated"
    REPLAYED = "replayed"
    SESSION = "session-unknown"
    SIGNATURE_INVALID = "signature-invalid"
    STALE = "stale"
    TOO_FEW_SIMILAR = "too-few-similar"


PUBLIC: Mapping[RefusalCode, str] = MappingProxyType(
    {
        RefusalCode.ASKER: "This silo does not answer whoever asked.",
        RefusalCode.BUDGET: "The asking silo, or its user, has spent today's queries.",
        RefusalCode.BUSY: "This silo has more queries than it can answer in time.",
        RefusalCode.COUNT: "This silo does not answer with counts.",
        RefusalCode.FILTER: "This silo does not release the field that the query was narrowed by.",
        RefusalCode.GALLERY_TOO_SMALL: "This silo holds too few such cases to answer without pointing at patients.",
        RefusalCode.INDEX_DAMAGED: "This silo's index cannot be read.",
        RefusalCode.INTERNAL: "This silo failed to answer; its own log says why.",
        RefusalCode.MESSAGE_INVALID: "The message is malformed or of another version.",
        RefusalCode.NOT_ANSWERING: "This silo does not answer queries.",
        RefusalCode.NOT_READY: "This silo has no index to search at the moment.",
        RefusalCode.OTHER_ENCODER: "This silo's index was made with another encoder.",
        RefusalCode.OTHER_KEY: "The query is not encrypted for the key that this silo has now.",
        RefusalCode.PRIVATE: "This silo does not answer private queries.",
        RefusalCode.PURPOSE: "This silo does not answer queries for this purpose.",
        RefusalCode.REPEATED: "The asking silo has asked too often today for much the same.",
        RefusalCode.REPLAYED: "This query was asked before.",
        RefusalCode.SESSION: "This silo does not have the query's keys any more.",
        RefusalCode.SIGNATURE_INVALID: "The query's signature does not verify.",
        RefusalCode.STALE: "The query was issued too long ago, or the clocks of the two silos differ.",
        RefusalCode.TOO_FEW_SIMILAR: "This silo holds too few similar cases to answer without pointing at patients.",
    }
)
