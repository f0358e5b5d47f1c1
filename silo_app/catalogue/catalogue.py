"""The catalogue as its readers see it: views, cases, counts, refusals."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from silo_app.cases import CASE_BYTES, CaseId, Finding, PatientKey, Sex, Split, View, ViewPosition
from silo_app.catalogue.counts import brightness_counts, read_counts
from silo_app.catalogue.filtering import CardColumns, read_columns
from silo_app.catalogue.labels import LABEL_COLUMNS, LABEL_TABLES, label_of
from silo_app.catalogue.records import CatalogueCounts, Label, Refusal, ViewKeys
from silo_app.catalogue.schema import ANEW, connect, failed, roll_back
from silo_app.catalogue.vault import StudyIdentity, Vault
from silo_app.catalogue.writing import CatalogueWriter, Identity
from silo_app.errors import CatalogueDamaged
from silo_app.hex_rows import hex_rows

__all__ = ["Catalogue"]

_VIEWS = """
    SELECT v.digest, v.case_id, s.patient, p.split, v.position, v.sex, v.age, v.study_year, v.device, v.burned_in
    FROM views v JOIN studies s USING (case_id) JOIN patients p ON p.key = s.patient
"""

_BLOCK = 20_000
_MOST_NAMED = 500
"""Values that one statement of SQLite may name, well below its limit."""
_FINDINGS = {finding.value: finding for finding in Finding}
"""Looked up millions of times; `Finding(name)` takes ten times as long."""


class Catalogue:
    """What one silo holds. Safe to read while another process writes; readable from any thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection, vault: Vault | None = None) -> None:
        self.path = path
        self._connection = connection
        self._vault = vault

    @classmethod
    def open(cls, path: Path, *, create: bool = False, vault: Vault | None = None) -> "Catalogue":
        """Open a catalogue, checking it.

        Only with the silo's `vault` are the names of files and the studies of cases readable; an ingest needs it, whoever
        trains, indexes or answers does not.
        Raises `NotReady` if there is none (and `create` is false), `CatalogueDamaged` if it is not sound.
        """
        return cls(path, connect(path, create=create), vault)

    def __enter__(self) -> Self:
        """Return the open catalogue."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close it; a second time does nothing."""
        self._connection.close()

    def is_of(self, check: str) -> bool:
        """Return whether the silo's key of this `SiloKey.check` made it; an empty one is of any."""
        return all(known == check for (known,) in self._rows("SELECT value FROM meta WHERE key = 'key-check'"))

    def views(self, split: Split | None = None) -> list[View]:
        """Return all views, or those of one split, ordered by digest."""
        if split is None:
            return self._views("", ())
        return self._views("WHERE p.split = ?", (split.value,))

    def views_of(self, case: CaseId) -> list[View]:
        """Return the views of one case, ordered by digest; none if the silo does not hold it."""
        return self._views("WHERE v.case_id = ?", (case,))

    def views_keyed(self, *, instance: str = "", study: str = "") -> list[View]:
        """Return the views of an image or a study, asked by the pseudonym of its UID, ordered by digest."""
        return self._views("WHERE (?1 <> '' AND v.instance_key = ?1) OR (?2 <> '' AND s.uid_key = ?2)", (instance, study))

    def card(self, case: CaseId) -> View | None:
        """Return the first view of a case that is still present, or None."""
        return next(iter(self.views_of(case)), None)

    def cards(self, cases: Sequence[CaseId]) -> dict[CaseId, View]:
        """Return what `card` does for many cases, in less time; without those that the silo does not hold."""
        found: dict[CaseId, View] = {}
        for start in range(0, len(cases), _MOST_NAMED):
            named = tuple(cases[start : start + _MOST_NAMED])
            for view in self._views(f"WHERE v.case_id IN ({', '.join('?' * len(named))})", named):
                found.setdefault(view.case, view)
        return found

    def card_columns(self) -> CardColumns:
        """Return what the `card` of every case says, by columns, as all of it is at one time. For one thread at a time."""
        self._rows("BEGIN")
        try:
            return read_columns(self._blocks)
        finally:
            if self._connection.in_transaction:
                self._rows("COMMIT")

    def case_names(self) -> NDArray[np.uint8]:
        """Return the cases that have views, as rows of bytes, ascending uint8 (n, 16); a tenth of `card_columns`' work."""
        blocks = self._blocks("SELECT DISTINCT case_id FROM views ORDER BY case_id")
        return hex_rows([case for block in blocks for (case,) in block], CASE_BYTES)

    def taken_out(self) -> list[CaseId]:
        """Return the cases of studies and patients that were taken out of the silo and not let in again, in order."""
        rows = self._rows(
            "SELECT case_id FROM studies WHERE key IN (SELECT key FROM recalls WHERE kind = 'study') "
            "OR patient IN (SELECT key FROM recalls WHERE kind = 'patient') ORDER BY case_id"
        )
        return [CaseId(case) for (case,) in rows]

    def contents(self) -> Iterator[list[str]]:
        """Yield of all views the digest with the case id behind it, block by block, as they lie in the file."""
        for block in self._blocks("SELECT digest || case_id FROM views"):
            yield [name for (name,) in block]

    def version(self) -> int:
        """Return a number that changes whenever somebody else has changed the catalogue, as long as it stays open."""
        return int(self._rows("PRAGMA data_version", ())[0][0])

    def patient_cases(self, patient: PatientKey) -> list[CaseId]:
        """Return the cases of one patient that have views, in a fixed order."""
        rows = self._rows(
            "SELECT DISTINCT case_id FROM studies JOIN views USING (case_id) WHERE patient = ? ORDER BY case_id",
            (patient,),
        )
        return [CaseId(case) for (case,) in rows]

    def case_of_digest(self, digest: str) -> CaseId | None:
        """Return the case that the file with this keyed digest (`ContentKey`) belongs to, or None."""
        rows = self._rows("SELECT case_id FROM views WHERE digest = ?", (digest,))
        return CaseId(rows[0][0]) if rows else None

    def labels_of(self, digest: str) -> list[Label]:
        """Return what is known about one view, with where it is known from."""
        query = f"SELECT {LABEL_COLUMNS} {LABEL_TABLES} WHERE l.digest = ? ORDER BY l.finding"
        return [label_of(row) for row in self._rows(query, (digest,))]

    def without_brightness(self) -> list[str]:
        """Return the digests of views whose brightness nobody has measured yet."""
        return [digest for (digest,) in self._rows("SELECT digest FROM views WHERE brightness IS NULL ORDER BY digest")]

    def measures(self) -> dict[str, tuple[int | None, tuple[int, ...]]]:
        """Return by digest the stored image's longer side in pixels, and how often each of 32 ranges of brightness occurs.

        What nobody has measured is None, and empty.
        """
        rows = self._rows("SELECT digest, max(source_rows, source_columns), brightness FROM views ORDER BY digest")
        return {digest: (side, brightness_counts(content) if content else ()) for digest, side, content in rows}

    def counts(self) -> CatalogueCounts:
        """Return how much of what the silo holds."""
        return read_counts(self._rows)

    def refusals(self) -> list[Refusal]:
        """Return every file that is no view, with the reason, ordered by path; names are sealed without the vault."""
        clear = self._vault.clear if self._vault else str
        rows = self._rows("SELECT source, path, reason, detail FROM files WHERE digest IS NULL")
        found = [Refusal(source=clear(s), path=clear(p), reason=reason, detail=detail) for s, p, reason, detail in rows]
        return sorted(found, key=lambda refusal: (refusal.source, refusal.path))

    def identity(self, case: CaseId) -> StudyIdentity | None:
        """Return by what the archive finds the study of a case; None without the vault, or if no image of it is held."""
        rows = self._rows("SELECT sealed FROM crosswalk WHERE case_id = ?", (case,))
        return self._vault.open(case, rows[0][0]) if self._vault and rows else None

    def files_of(self, case: CaseId) -> list[str]:
        """Return the files of a case's images, "source: path"; none without the vault."""
        if self._vault is None:
            return []
        query = "SELECT f.source, f.path FROM files f JOIN views v USING (digest) WHERE v.case_id = ?"
        clear = self._vault.clear
        return sorted(f"{clear(source)}: {clear(path)}" for source, path in self._rows(query, (case,)))

    def files_holding(self, digests: Sequence[str]) -> list[tuple[str, str, str]]:
        """Return source, path and digest of the files that hold these contents; none without the vault."""
        if self._vault is None:
            return []
        found, clear = [], self._vault.clear
        for start in range(0, len(digests), _MOST_NAMED):
            named = tuple(digests[start : start + _MOST_NAMED])
            query = f"SELECT source, path, digest FROM files WHERE digest IN ({', '.join('?' * len(named))})"  # noqa: S608
            found += [(clear(source), clear(path), digest) for source, path, digest in self._rows(query, named)]
        return sorted(found)

    def cases_like(self, start: str) -> list[CaseId]:
        """Return the cases whose id begins with `start`, at most two; ids are hexadecimal."""
        query = "SELECT case_id FROM studies WHERE substr(case_id, 1, ?) = ? ORDER BY case_id LIMIT 2"
        return [CaseId(case) for (case,) in self._rows(query, (str(len(start)), start))]

    def stamp(self, mtime_ns: int) -> int:
        """Return what `FileRecord.mtime_ns` is for a file of this time: with the vault, it does not tell the time."""
        return self._vault.stamp(mtime_ns) if self._vault else mtime_ns

    def seal_names(self) -> None:
        """Seal what an earlier version wrote in clear, and take the clear bytes out of the file (`VACUUM`)."""
        with self.writing() as writer:
            were_clear = writer.seal_names()
        if were_clear:
            for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                self._connection.execute(statement)

    def identities(self) -> list[Identity]:
        """Return what a label file may name each view by, ordered by digest; names of files are sealed without the vault."""
        return list(CatalogueWriter(self._connection, self._vault).identities())

    def pseudonyms_of(self, kind: str, *, case: str = "", uid: str = "", patient: str = "") -> list[str]:
        """Return the pseudonyms of studies (kind "study") or their patients (kind "patient") that the silo has known.

        Asked by a case id, by the pseudonym of a Study Instance UID, or by that of a Patient ID.
        """
        column = {"study": "s.key", "patient": "p.key"}[kind]
        rows = self._rows(
            f"SELECT DISTINCT {column} FROM studies s JOIN patients p ON p.key = s.patient "  # noqa: S608  (ours)
            "WHERE s.case_id = ?1 OR (?2 <> '' AND s.uid_key = ?2) OR (?3 <> '' AND p.id_key = ?3) ORDER BY 1",
            (case, uid, patient),
        )
        return [str(key) for (key,) in rows]

    def is_recalled(self, keys: ViewKeys) -> bool:
        """Return whether an image's study or patient was taken out of the silo."""
        return CatalogueWriter(self._connection).is_recalled(keys)

    @contextmanager
    def writing(self) -> Iterator[CatalogueWriter]:
        """Write in one transaction: all of the block, or nothing of it if it raises.

        Raises `NotReady` if the disk is full or somebody else writes for long, `CatalogueDamaged`.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield CatalogueWriter(self._connection, self._vault)
                self._connection.execute("COMMIT")
            except BaseException:
                roll_back(self._connection)
                raise
        except sqlite3.Error as error:
            if told := failed(self.path, error):
                raise told from None
            raise

    def _views(self, where: str, arguments: tuple[str, ...]) -> list[View]:
        findings: dict[str, dict[Finding, bool]] = {}
        for digest, name, present in self._rows(
            "SELECT digest, finding, present FROM labels WHERE digest IN "  # noqa: S608  (`where` is one of our own)
            "(SELECT v.digest FROM views v JOIN studies s USING (case_id) JOIN patients p ON p.key = s.patient "
            f"{where}) ORDER BY finding",
            arguments,
        ):
            findings.setdefault(digest, {})[_FINDINGS[name]] = bool(present)
        return [
            View(
                digest=digest,
                case=CaseId(case),
                patient=PatientKey(patient),
                split=Split(split),
                position=ViewPosition(position),
                sex=Sex(sex),
                age=age,
                study_year=year,
                device=device,
                burned_in=None if burned_in is None else bool(burned_in),
                findings=findings.get(digest, {}),
            )
            for digest, case, patient, split, position, sex, age, year, device, burned_in in self._rows(
                f"{_VIEWS} {where} ORDER BY v.digest", arguments
            )
        ]

    def _rows(self, query: str, arguments: tuple[str | int, ...] = ()) -> list[tuple]:  # type: ignore[type-arg]
        """Run a query. Raises `CatalogueDamaged` if the file turns out to be broken."""
        try:
            return self._connection.execute(query, arguments).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._broken(error) from None

    def _blocks(self, query: str) -> Iterator[list[tuple]]:  # type: ignore[type-arg]
        """Run a query that finds much, block by block. Raises as `_rows` does."""
        try:
            found = self._connection.execute(query)
            while block := found.fetchmany(_BLOCK):
                yield block
        except sqlite3.DatabaseError as error:
            raise self._broken(error) from None

    def _broken(self, error: sqlite3.DatabaseError) -> CatalogueDamaged:
        return CatalogueDamaged(
            f"the catalogue cannot be read ({error})",
            where=str(self.path),
            remedy=ANEW,
        )
