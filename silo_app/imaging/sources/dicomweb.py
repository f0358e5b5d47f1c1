"""An archive over DICOMweb (PS3.18): QIDO-RS lists, WADO-RS gives each image as the bytes that the archive holds."""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from silo_app.config import DicomWebSource, SiloHome
from silo_app.durable import read_private_text
from silo_app.errors import SourceEmpty
from silo_app.imaging.content import MAX_FILE_BYTES
from silo_app.imaging.refusal import RefusalReason, refusal
from silo_app.imaging.sources.multipart import only_part
from silo_app.imaging.sources.optional import dicomweb_library
from silo_app.imaging.sources.patience import Outage, patiently, unreachable
from silo_app.imaging.sources.remote import STUDY_KEYWORDS, Instance, gone, instance_of, remote_file
from silo_app.imaging.sources.source import Fetch, SourceFile
from silo_app.imaging.sources.tls import certificate, why_refused

__all__ = ["DicomWebFiles"]

T = TypeVar("T")
_PAGE = 200
_FEWEST = 50
"""Archives bound what they give at once (PS3.18 8.3.4.4), and none to fewer. Most series have one image: what is listed in
full is not asked for again."""
_STEP = 1 << 20
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'  # as it is stored: PS3.18 8.7.3.5
_TAGS = {
    "StudyInstanceUID": "0020000D",
    "SeriesInstanceUID": "0020000E",
    "SOPInstanceUID": "00080018",
    "Modality": "00080060",
    "PatientID": "00100020",
    "IssuerOfPatientID": "00100021",
    "PatientSex": "00100040",
    "PatientBirthDate": "00100030",
    "StudyDate": "00080020",
    "AccessionNumber": "00080050",
}
_LOGIN = "Check password_file or token_file of this source, and what the archive lets this account see."


@dataclass(frozen=True, slots=True)
class DicomWebFiles:
    """The images of the configured modalities in a DICOMweb archive."""

    home: SiloHome
    settings: DicomWebSource

    @property
    def name(self) -> str:
        """The source's configured name."""
        return self.settings.name

    def files(self) -> list[SourceFile]:
        """Return every image. Raises `SourceUnreachable`; `SourceEmpty` if the archive shows us nothing."""
        archive = self._open()
        found: dict[str, SourceFile] = {}
        for modality in self.settings.modalities:
            for study in archive.studies(modality):
                facts = {keyword: _value(study, keyword) for keyword in STUDY_KEYWORDS}
                for instance in archive.instances(_value(study, "StudyInstanceUID"), modality):
                    file = remote_file(instance, facts)
                    found[file.name] = file
        if not found:
            raise SourceEmpty("the archive shows us no image", where=self.settings.url, remedy=_LOGIN)
        return [found[name] for name in sorted(found)]

    def confirm_gone(self, names: Sequence[str]) -> list[str]:
        """Return the names that the archive, asked series by series, does not hold, or no longer in the period asked for."""
        archive = self._open()
        pairs = {instance_of(name)[:2] for name in names}
        dated = {study for study, _ in pairs if archive.holds(study)}
        held = {(u, s): {i.sop for i in archive.of_series(u, s)} if u in dated else set() for u, s in pairs}
        return gone(names, held)

    def holds(self, study: str) -> bool:
        """Return whether the archive shows us a study. Raises `SourceUnreachable`."""
        return self._open().holds(study)

    def named(self, name: str) -> SourceFile:
        """Return the image of this name."""
        return remote_file(instance_of(name), {})

    @contextmanager
    def fetching(self, spool: Path) -> Iterator[Fetch]:
        """Give images as files in `spool`."""
        archive = self._open()
        yield lambda file: archive.fetch(instance_of(file.name), spool / secrets.token_hex(16))

    def _open(self) -> "_Archive":
        import requests

        library, settings, home = dicomweb_library(), self.settings, self.home
        session: Any = requests.Session()
        session.trust_env = False  # no password from ~/.netrc, no proxy that nobody named here
        if settings.password_file:
            user, _, password = read_private_text(home.resolve(settings.password_file)).strip().partition(":")
            session.auth = (user, password)
        if settings.token_file:
            token = read_private_text(home.resolve(settings.token_file)).strip()
            session.headers["Authorization"] = f"Bearer {token}"
        if settings.tls:
            session.verify = str(home.resolve(settings.tls.ca_file))
            if ours := certificate(home, settings.tls):
                session.cert = (str(ours[0]), str(ours[1]))
        session.request = _with_timeout(session.request, settings.timeout_s)
        client = library.DICOMwebClient(url=settings.url, session=session)
        client.set_http_retry_params(retry=False)
        return _Archive(client, session, settings)


@dataclass(frozen=True, slots=True)
class _Archive:
    client: Any
    session: Any
    settings: DicomWebSource

    def studies(self, modality: str) -> Iterator[Mapping[str, Any]]:
        """Yield every study with a series of a modality."""
        period = {"StudyDate": f"{self.settings.since:%Y%m%d}-"} if self.settings.since else {}
        yield from self._paged(
            self.client.search_for_studies,
            "StudyInstanceUID",
            fields=list(STUDY_KEYWORDS),
            search_filters={"ModalitiesInStudy": modality} | period,
            limit=_PAGE,
        )

    def instances(self, study: str, modality: str) -> Iterator[Instance]:
        """Yield the images of a study's series of a modality."""
        search = self.client.search_for_series
        for series in self._paged(search, "SeriesInstanceUID", whole_below=_FEWEST, study_instance_uid=study):
            if _value(series, "Modality") == modality:
                yield from self.of_series(study, _value(series, "SeriesInstanceUID"))

    def of_series(self, study: str, series: str) -> list[Instance]:
        """Return the images of a series; none if it is gone."""
        search, uids = self.client.search_for_instances, {"study_instance_uid": study, "series_instance_uid": series}
        listed = self._paged(search, "SOPInstanceUID", whole_below=_FEWEST, **uids)
        return [Instance(study, series, _value(entry, "SOPInstanceUID")) for entry in listed]

    def _paged(
        self, search: Callable[..., list[Any]], uid: str, *, whole_below: int = 1, **arguments: Any
    ) -> Iterator[Mapping[str, Any]]:
        """Yield every result once, page by page; fewer than `whole_below` are the last. An archive may give all at once."""
        seen: set[str] = set()
        offset = 0
        while page := self._query(search, **arguments, **({"offset": offset} if offset else {})):
            found = {_value(entry, uid): entry for entry in page}
            new = [entry for name, entry in found.items() if name not in seen]
            if not new:  # the same page again: `offset` says nothing to it
                return
            yield from new
            if len(page) < whole_below:
                return
            seen |= set(found)
            offset += len(page)

    def holds(self, study: str) -> bool:
        """Return whether a study is there, in the period that is asked for."""
        period = {"StudyDate": f"{self.settings.since:%Y%m%d}-"} if self.settings.since else {}
        return bool(self._query(self.client.search_for_studies, search_filters={"StudyInstanceUID": study} | period))

    def fetch(self, instance: Instance, target: Path) -> Path:
        """Write one image to `target`, as the archive holds it."""
        study, series, sop = instance
        url = f"{self.settings.url.rstrip('/')}/studies/{study}/series/{series}/instances/{sop}"
        content = self._patiently(lambda: self._download(url))
        if content is None:
            raise refusal(RefusalReason.NOT_RETRIEVED, "the archive lists the image and does not give it")
        target.write_bytes(content)
        return target

    def _download(self, url: str) -> bytes | None:
        with self.session.get(url, headers={"Accept": _ACCEPT}, stream=True) as response:
            if response.status_code in {404, 406, 410}:
                return None
            response.raise_for_status()
            content = bytearray()
            for block in response.iter_content(_STEP):
                content += block
                if len(content) > MAX_FILE_BYTES:
                    raise refusal(RefusalReason.TOO_LARGE, "the archive sends more than 256 MiB as one image")
            return only_part(bytes(content), response.headers.get("Content-Type", ""))

    def _query(self, search: Callable[..., list[Any]], **arguments: Any) -> list[Any]:
        import requests

        def ask() -> list[Any]:
            try:
                found = search(**arguments)
            except requests.HTTPError as error:
                if error.response is not None and error.response.status_code == 404:  # gone between two questions
                    return []
                raise
            if not isinstance(found, list) or not all(isinstance(entry, Mapping) for entry in found):
                raise ValueError("a result is no dataset (PS3.18 annex F)")
            return found

        return self._patiently(ask)

    def _patiently(self, call: Callable[[], T]) -> T:
        where = self.settings.url
        return patiently(lambda: _judged(call, where), patience_s=self.settings.patience_s, where=where)


def _judged(call: Callable[[], T], where: str) -> T:
    """Call, telling what may be over soon (`Outage`) from what will not (`SourceUnreachable`)."""
    import requests

    try:
        return call()
    except requests.exceptions.SSLError as error:
        problem = f"we and the archive do not trust each other's certificates: {why_refused(error)}"
        raise unreachable(problem, where, "Check `tls` of it, and the archive's certificate.") from None
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in {401, 403}:
            raise unreachable(f"the archive does not let us in (HTTP {status})", where, _LOGIN) from None
        if status < 500 and status != 429:
            raise unreachable(f"the archive refuses the question (HTTP {status})", where, "Check its url.") from None
        raise Outage(f"the archive has a problem (HTTP {status})") from None
    except (requests.RequestException, OSError) as error:
        raise Outage(f"the archive does not answer ({type(error).__name__})") from None
    except ValueError:  # JSON cut short by a restart, or not DICOMweb at all
        raise Outage("the archive does not answer in DICOMweb") from None


def _value(entry: Mapping[str, Any], keyword: str) -> str:
    """Return an attribute's first value as text that can be stored, whatever an archive puts there; "" if there is none."""
    element = entry.get(_TAGS[keyword])
    values = element.get("Value") if isinstance(element, Mapping) else None
    return str(values[0] or "").encode(errors="replace").decode() if isinstance(values, list) and values else ""


def _with_timeout(request: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    return lambda *arguments, **options: request(*arguments, **({"timeout": seconds} | options))
