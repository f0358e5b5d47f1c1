"""Every error that Siloscope raises on purpose, in one tree, sorted by what its reader can do.

    SiloscopeError
    ├── InputError            what you gave is wrong: change it
    │   ├── CaseUnknown           case-unknown
    │   ├── ConfigInvalid         config-invalid
    │   ├── EncoderUnknown        encoder-unknown
    │   ├── ImageUnsupported      image-unsupported
    │   ├── JobUnknown            job-unknown
    │   ├── LabelsInvalid         labels-invalid
    │   ├── SampleInvalid         sample-invalid
    │   └── SourceEmpty           source-empty
    ├── StateError            what lies on this machine is not as it should be: mend it
    │   ├── AuditDamaged          audit-damaged
    │   ├── CatalogueDamaged      catalogue-damaged
    │   ├── CertificateMissing    certificate-missing
    │   ├── CheckpointInvalid     checkpoint-invalid
    │   ├── EncoderMismatch       encoder-mismatch
    │   ├── IndexDamaged          index-damaged
    │   └── NotReady              not-ready
    ├── ProtocolError         another party sent what we refuse: nothing was used
    │   ├── KeyRefused            key-refused
    │   ├── MessageInvalid        message-invalid
    │   ├── RoundRefused          round-refused
    │   ├── SignatureInvalid      signature-invalid
    │   ├── SumRejected           sum-rejected
    │   ├── SurvivorsDisputed     survivors-disputed
    │   └── UpdateRefused         update-refused
    ├── FederationError       something that should run or answer does not
    │   ├── BrokerUnreachable     broker-unreachable
    │   ├── Busy                  busy
    │   ├── JobFailed             job-failed
    │   ├── PortTaken             port-taken
    │   ├── ProcessFailed         process-failed
    │   └── ServerUnreachable     server-unreachable
    ├── SourceUnreachable     source-unreachable: an archive does not answer, or does not let us in
    ├── PrivacyRefused        privacy-refused: the silo's privacy budget does not allow it
    └── ReleaseRefused        release-refused: the silo's policy does not let this out

Across the border of a silo only `code` and `public` travel: an exception's own text may name files or values.
"""

from typing import ClassVar

__all__ = [
    "AuditDamaged",
    "BrokerUnreachable",
    "Busy",
    "CaseUnknown",
    "CatalogueDamaged",
    "CertificateMissing",
    "CheckpointInvalid",
    "ConfigInvalid",
    "EncoderMismatch",
    "EncoderUnknown",
    "FederationError",
    "ImageUnsupported",
    "IndexDamaged",
    "InputError",
    "JobFailed",
    "JobUnknown",
    "KeyRefused",
    "LabelsInvalid",
    "MessageInvalid",
    "NotReady",
    "PortTaken",
    "PrivacyRefused",
    "ProcessFailed",
    "ProtocolError",
    "ReleaseRefused",
    "RoundRefused",
    "SampleInvalid",
    "ServerUnreachable",
    "SignatureInvalid",
    "SiloscopeError",
    "SourceEmpty",
    "SourceUnreachable",
    "StateError",
    "SumRejected",
    "SurvivorsDisputed",
    "UpdateRefused",
]


class SiloscopeError(Exception):
    """An error with a cause, a place and a remedy; `str()` gives all three, on one line each."""

    code: ClassVar[str] = "siloscope"
    public: ClassVar[str] = "Siloscope could not do this."
    exit_status: ClassVar[int] = 1

    def __init__(self, problem: str, *, remedy: str, where: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.where = where

    def __str__(self) -> str:
        """Return "where: problem" and the remedy on a second line."""
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.problem}\n{self.remedy}"


class InputError(SiloscopeError):
    """What you gave is wrong."""

    code = "input"
    public = "The input cannot be used."
    exit_status = 2


class CaseUnknown(InputError):
    """A case id that this silo does not hold, or that more than one case begins with."""

    code = "case-unknown"
    public = "There is no such case."


class ConfigInvalid(InputError):
    """A configuration file or option is wrong."""

    code = "config-invalid"
    public = "The configuration is not valid."


class EncoderUnknown(InputError):
    """An encoder version that this silo does not hold, or that more than one version begins with."""

    code = "encoder-unknown"
    public = "There is no such encoder."


class ImageUnsupported(InputError):
    """A file is not an image that a silo can use; `reason` is one of a closed list of words (`imaging.radiograph`)."""

    code = "image-unsupported"
    public = "The image cannot be used."

    def __init__(self, problem: str, *, reason: str, remedy: str, where: str = "") -> None:
        super().__init__(problem, remedy=remedy, where=where)
        self.reason = reason


class JobUnknown(InputError):
    """The beginning of a job's id that no job has, or more than one."""

    code = "job-unknown"
    public = "There is no such job."


class LabelsInvalid(InputError):
    """A label file does not have the columns or values that its configuration promises."""

    code = "labels-invalid"
    public = "The label file is not valid."


class SampleInvalid(InputError):
    """A set of images cannot be turned into hospital archives."""

    code = "sample-invalid"
    public = "The sample data are not valid."


class SourceEmpty(InputError):
    """A source holds nothing to ingest."""

    code = "source-empty"
    public = "The source is empty."


class StateError(SiloscopeError):
    """What lies on this machine is not as it should be."""

    code = "state"
    public = "The silo is not in order."


class AuditDamaged(StateError):
    """A line of the audit log was changed, taken out or put in."""

    code = "audit-damaged"
    public = "The silo's audit log is not as it was written."


class CatalogueDamaged(StateError):
    """The catalogue cannot be read, or is of another version."""

    code = "catalogue-damaged"
    public = "The silo's catalogue cannot be read."


class CertificateMissing(StateError):
    """A certificate or key of the startup kit is missing, expired or not of this federation."""

    code = "certificate-missing"
    public = "A certificate is missing or not valid."


class CheckpointInvalid(StateError):
    """An encoder's checkpoint is missing, damaged or does not fit its card."""

    code = "checkpoint-invalid"
    public = "The encoder's checkpoint cannot be used."


class EncoderMismatch(StateError):
    """Two things that must come from one encoder version do not."""

    code = "encoder-mismatch"
    public = "This silo's index was made with another encoder."


class IndexDamaged(StateError):
    """No generation of the index can be read."""

    code = "index-damaged"
    public = "This silo's index cannot be read."


class NotReady(StateError):
    """A step that must come before has not been done."""

    code = "not-ready"
    public = "This silo is not ready for this."


class ProtocolError(SiloscopeError):
    """Another party sent what we refuse."""

    code = "protocol"
    public = "The message was refused."


class KeyRefused(ProtocolError):
    """A key of another job, or from another sender than it claims."""

    code = "key-refused"
    public = "The key was refused."


class MessageInvalid(ProtocolError):
    """A message that is malformed, oversized or of an unknown version."""

    code = "message-invalid"
    public = "The message is malformed or of another version."


class RoundRefused(ProtocolError):
    """A round that is replayed, out of order, or below the smallest number of silos."""

    code = "round-refused"
    public = "The round was refused."


class SignatureInvalid(ProtocolError):
    """A signature or certificate chain that does not verify."""

    code = "signature-invalid"
    public = "The signature does not verify."


class SumRejected(ProtocolError):
    """A sum after which the encoder fails the silo's own test on its held-out patients."""

    code = "sum-rejected"
    public = "The sum failed this silo's own test."


class SurvivorsDisputed(ProtocolError):
    """Two silos were told different things about whose updates arrived: evidence of a server that lies."""

    code = "survivors-disputed"
    public = "The silos were told different things about who took part in a round."


class UpdateRefused(ProtocolError):
    """An update or a sum with a foreign layout, or with values that are not finite."""

    code = "update-refused"
    public = "The update was refused."


class FederationError(SiloscopeError):
    """Something that should run or answer does not."""

    code = "federation"
    public = "A part of the federation does not answer."


class BrokerUnreachable(FederationError):
    """No search broker answers."""

    code = "broker-unreachable"
    public = "No search broker answers."


class Busy(FederationError):
    """A process of the silo has as much to do as it takes on at once."""

    code = "busy"
    public = "This silo has too much to do at the moment."


class JobFailed(FederationError):
    """A job ended otherwise than completed."""

    code = "job-failed"
    public = "The job did not complete."


class PortTaken(FederationError):
    """A port that the server needs is used by another process."""

    code = "port-taken"
    public = "A port is in use."


class ProcessFailed(FederationError):
    """A process that we started ended, or does not do its work."""

    code = "process-failed"
    public = "A process failed."


class ServerUnreachable(FederationError):
    """The coordinator's server does not answer."""

    code = "server-unreachable"
    public = "The server does not answer."


class PrivacyRefused(SiloscopeError):
    """A training would spend more of the patients' privacy than this silo allows, or promises none where one is due."""

    code = "privacy-refused"
    public = "This silo's privacy budget does not allow it."


class ReleaseRefused(SiloscopeError):
    """The silo's release policy does not let this out."""

    code = "release-refused"
    public = "The silo's policy does not allow this."


class SourceUnreachable(SiloscopeError):
    """An archive or folder that a silo ingests from does not answer, does not let us in, or ends in the middle."""

    code = "source-unreachable"
    public = "An archive does not answer."
