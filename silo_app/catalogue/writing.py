"""What an ingest writes into the catalogue, within one transaction (`Catalogue.writing`)."""

import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from silo_app.cases import CASE_BYTES, CaseId
from silo_app.catalogue.labels import read_labels, write_labels
from silo_app.catalogue.records import FileRecord, Label, ViewKeys, ViewRecord
from silo_app.catalogue.vault import StudyIdentity, Vault
from silo_app.errors import CatalogueDamaged

__all__ = ["CatalogueWriter", "Identity"]

_HELD = {
    kind: f"SELECT v.digest, v.instance_key FROM views v JOIN studies s USING (case_id) WHERE {column} = ?"  # noqa: S608
    for kind, column in {"study": "s.key", "patient": "s.patient"}.items()
}
"""The images of a study or a patient."""
_NAMES = {
    kind: f"""
        SELECT s.uid_key FROM studies s WHERE s.{column} = ?1
        AND NOT EXISTS (SELECT 1 FROM studies o JOIN views USING (case_id) WHERE o.uid_key = s.uid_key)
        UNION SELECT id_key FROM patients WHERE 'patient' = '{kind}' AND key = ?1
    """  # noqa: S608  (the columns are our own)
    for kind, column in {"study": "key", "patient": "patient"}.items()
}
"""By what else a study or a patient that was taken out is known; not by a study UID that somebody's images share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a label file may name a view by: keyed pseudonyms, and the paths of its files."""

    digest: str
    instance: str
    study_uid: str
    accession: str
    patient_id: str
    paths: tuple[str, ...]


class CatalogueWriter:
    """Changes to the catalogue; durable when the block of `Catalogue.writing` ends."""

    def __init__(self, connection: sqlite3.Connection, vault: Vault | None = None) -> None:
        self._connection = connection
        self._vault = vault

    def bind_key(self, check: str) -> None:
        """Tie the catalogue to the silo's key at first use. Raises `CatalogueDamaged` if it was made with another."""
        self._connection.execute("INSERT OR IGNORE INTO meta VALUES ('key-check', ?)", (check,))
        (known,) = self._connection.execute("SELECT value FROM meta WHERE key = 'key-check'").fetchone()
        if known != check:
            raise CatalogueDamaged(
                "the catalogue was made with another silo key",
                remedy="Restore the key (silo.key) that belongs to it, or move the catalogue away, ingest again, "
                "and take out again what was taken out (`case-recalled` in the audit log).",
            )

    def files(self, source: str) -> dict[str, FileRecord]:
        """Return what is known about the files of a source, by path."""
        rows = self._connection.execute(
            "SELECT source, path, size, mtime_ns, recipe, digest, reason, detail, instance_key FROM files WHERE source = ?",
            (self._sealed(source),),
        )
        names = ("source", "path", "size", "mtime_ns", "recipe", "digest", "reason", "detail", "instance")
        records = (FileRecord(**dict(zip(names, row, strict=True))) for row in rows)
        return {path: replace(row, source=source, path=path) for row in records for path in (self._clear(row.path),)}

    def holder(self, instance: str) -> str | None:
        """Return the digest of the view that holds an instance, or None."""
        row = self._connection.execute("SELECT digest FROM views WHERE instance_key = ?", (instance,)).fetchone()
        return row[0] if row else None

    def is_held(self, digest: str, recipe: str) -> bool:
        """Return whether a file that was read by `recipe` holds a view."""
        row = self._connection.execute("SELECT 1 FROM files WHERE digest = ? AND recipe = ?", (digest, recipe)).fetchone()
        return row is not None

    def rename(self, digest: str, other: str) -> None:
        """Give a view, with its files and labels, another digest."""
        self._connection.execute("PRAGMA defer_foreign_keys = ON")  # until the transaction ends
        for table in ("views", "labels", "files"):
            self._connection.execute(f"UPDATE {table} SET digest = ? WHERE digest = ?", (other, digest))  # noqa: S608

    def add_view(self, view: ViewRecord) -> CaseId:
        """Add a view, or bring a known one up to date; its study keeps its case id, its patient the split.

        A new patient with a known Patient ID, of another issuer or of none, has the split of that one.
        """
        keys = view.keys
        self._connection.execute(
            # max: "train" rather than "held-out", since who was trained on must not be evaluated
            "INSERT INTO patients VALUES (?1, ?2, coalesce((SELECT max(split) FROM patients "
            "WHERE id_key = ?2 AND ?2 <> ''), ?3)) ON CONFLICT DO NOTHING",
            (keys.patient, keys.patient_id, view.split),
        )
        case = self._case(keys)
        self._add_series(keys, case)
        facts = _facts(view, case)
        columns, marks = ", ".join(facts), ", ".join("?" * len(facts))
        changes = ", ".join(f"{name} = excluded.{name}" for name in facts if name != "digest")
        self._connection.execute(
            f"INSERT INTO views ({columns}) VALUES ({marks}) "  # noqa: S608  (the columns are our own)
            f"ON CONFLICT (digest) DO UPDATE SET {changes}",
            tuple(facts.values()),
        )
        return case

    def _case(self, keys: ViewKeys) -> CaseId:
        self._connection.execute(
            "INSERT INTO studies VALUES (?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
            (secrets.token_hex(CASE_BYTES), keys.study, keys.study_uid, keys.accession, keys.patient),
        )
        (case,) = self._connection.execute("SELECT case_id FROM studies WHERE key = ?", (keys.study,)).fetchone()
        return CaseId(case)

    def _add_series(self, keys: ViewKeys, case: CaseId) -> None:
        if keys.series:
            self._connection.execute("INSERT INTO series VALUES (?, ?) ON CONFLICT DO NOTHING", (keys.series, case))

    def record_file(self, file: FileRecord) -> None:
        """Write down what a file turned out to be."""
        self._connection.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._sealed(file.source),
                self._sealed(file.path),
                file.size,
                self._vault.stamp(file.mtime_ns) if self._vault else file.mtime_ns,
                file.recipe,
                file.digest,
                file.reason,
                file.detail,
                file.instance,
            ),
        )

    def forget_files(self, source: str, paths: Iterable[str]) -> None:
        """Forget files that are no longer in their source."""
        self._connection.executemany(
            "DELETE FROM files WHERE source = ? AND path = ?", ((self._sealed(source), self._sealed(p)) for p in paths)
        )

    def sources(self) -> list[str]:
        """Return the sources of which files are known, ordered by name."""
        return sorted(self._clear(source) for (source,) in self._connection.execute("SELECT DISTINCT source FROM files"))

    def forget_copies(self, sources: Sequence[str]) -> None:
        """Forget files of these sources that are refused, or whose contents files of others hold: no view goes by that."""
        ours = [self._sealed(source) for source in sources]
        marks = ", ".join("?" * len(ours))
        self._connection.execute(
            f"DELETE FROM files WHERE source IN ({marks}) AND (digest IS NULL OR digest IN "  # noqa: S608  (marks)
            f"(SELECT digest FROM files WHERE digest IS NOT NULL AND source NOT IN ({marks})))",
            (*ours, *ours),
        )

    def give_up(self, digest: str, sources: Sequence[str]) -> bool:
        """Forget the files of these sources that hold a view; return whether it was removed, since no other holds it."""
        self._connection.executemany(
            "DELETE FROM files WHERE digest = ? AND source = ?", ((digest, self._sealed(source)) for source in sources)
        )
        return self.drop_if_orphan(digest)

    def drop_orphans(self) -> list[str]:
        """Remove views that no file holds any more; return their digests."""
        orphans = self._connection.execute(
            "DELETE FROM views WHERE digest NOT IN (SELECT digest FROM files WHERE digest IS NOT NULL) RETURNING digest"
        ).fetchall()
        if orphans:  # the case ids of these studies stay, and say nothing
            self._connection.execute("DELETE FROM crosswalk WHERE case_id NOT IN (SELECT case_id FROM views)")
        return [digest for (digest,) in orphans]

    def drop_if_orphan(self, digest: str) -> bool:
        """Remove one view if no file holds it any more; return whether it was removed."""
        dropped = self._connection.execute(
            "DELETE FROM views WHERE digest = ?1 AND NOT EXISTS (SELECT 1 FROM files WHERE digest = ?1) RETURNING case_id",
            (digest,),
        ).fetchall()
        self._connection.executemany(
            "DELETE FROM crosswalk WHERE case_id = ?1 AND NOT EXISTS (SELECT 1 FROM views WHERE case_id = ?1)", dropped
        )
        return bool(dropped)

    def is_recalled(self, keys: ViewKeys) -> bool:
        """Return whether an image's study or patient was taken out of the silo, whoever it is said to be of now."""
        row = self._connection.execute(
            "SELECT 1 FROM recalls WHERE (kind = 'study' AND key = ?1) OR (kind = 'patient' AND key = ?2) "
            "UNION ALL SELECT 1 FROM recalled_names WHERE name IN (?3, ?4, ?5) AND name <> ''",
            (keys.study, keys.patient, keys.instance, keys.study_uid, keys.patient_id),
        ).fetchone()
        return row is not None

    def held(self, kind: str, keys: Sequence[str]) -> list[str]:
        """Return the digests of the views of studies or patients, by their pseudonyms."""
        return [digest for key in keys for digest, _ in self._connection.execute(_HELD[kind], (key,)).fetchall()]

    def recall(self, kind: str, keys: Sequence[str], *, since: str, reason: str, detail: str) -> list[str]:
        """Take studies or patients out, by their pseudonyms, for every ingest to come; return the digests of their views.

        Their files stay known, as refused with `reason`, so that nothing of them is read again. An archive may merge
        patients, correct a Patient ID or name its issuer afterwards: images, study UIDs and Patient IDs are out by
        themselves too.
        """
        self._connection.executemany("INSERT OR IGNORE INTO recalls VALUES (?, ?, ?)", [(kind, key, since) for key in keys])
        digests: list[str] = []
        for key in keys:
            held = self._connection.execute(_HELD[kind], (key,)).fetchall()
            self._name_recalled(kind, key, [instance for _, instance in held])
            digests += [digest for digest, _ in held]
        for digest in digests:
            self._connection.execute(
                "UPDATE files SET digest = NULL, reason = ?, detail = ? WHERE digest = ?", (reason, detail, digest)
            )
            self.drop_if_orphan(digest)
        for key in keys:
            self._name_recalled(kind, key, [name for (name,) in self._connection.execute(_NAMES[kind], (key,)).fetchall()])
        return digests

    def _name_recalled(self, kind: str, key: str, names: Iterable[str]) -> None:
        self._connection.executemany(
            "INSERT OR IGNORE INTO recalled_names VALUES (?, ?, ?)", [(name, kind, key) for name in names if name]
        )

    def restore(self, kind: str, keys: Sequence[str], *, reason: str) -> int:
        """Let studies or patients in again at the next ingest; return how many of them had been taken out."""
        restored = sum(
            self._connection.execute("DELETE FROM recalls WHERE kind = ? AND key = ?", (kind, key)).rowcount for key in keys
        )
        if restored:  # whose files they are is not known any more: all are read again
            self._connection.execute("DELETE FROM files WHERE reason = ?", (reason,))
        return restored

    def remember(self, case: CaseId, identity: StudyIdentity) -> None:
        """Keep, sealed, by what the archive finds the study of a case; nothing without the silo's key."""
        if self._vault:
            self._connection.execute(
                "INSERT OR REPLACE INTO crosswalk VALUES (?, ?)", (case, self._vault.seal(case, identity))
            )

    def seal_names(self) -> bool:
        """Seal the names and times of files that an earlier version wrote in clear; return whether there were any."""
        vault = self._vault
        if vault is None or self._connection.execute("SELECT 1 FROM meta WHERE key = 'names-sealed'").fetchone():
            return False
        self._connection.execute("INSERT INTO meta VALUES ('names-sealed', '1')")
        rows = self._connection.execute("SELECT source, path, mtime_ns FROM files").fetchall()
        self._connection.executemany(
            "UPDATE files SET source = ?, path = ?, mtime_ns = ? WHERE source = ? AND path = ?",
            ((vault.name(source), vault.name(path), vault.stamp(time), source, path) for source, path, time in rows),
        )
        return bool(rows)

    def _sealed(self, name: str) -> str:
        return self._vault.name(name) if self._vault else name

    def _clear(self, token: str) -> str:
        return self._vault.clear(token) if self._vault else token

    def identities(self) -> Iterator[Identity]:
        """Yield what each view can be named by, ordered by digest."""
        paths: dict[str, list[str]] = {}
        for digest, path in self._connection.execute(
            "SELECT digest, path FROM files WHERE digest IS NOT NULL ORDER BY digest, source, path"
        ):
            paths.setdefault(digest, []).append(self._clear(path))
        for digest, instance, study, accession, patient in self._connection.execute(
            "SELECT v.digest, v.instance_key, s.uid_key, s.accession_key, p.id_key FROM views v "
            "JOIN studies s USING (case_id) JOIN patients p ON p.key = s.patient ORDER BY v.digest"
        ).fetchall():
            yield Identity(
                digest=digest,
                instance=instance,
                study_uid=study,
                accession=accession,
                patient_id=patient,
                paths=tuple(sorted(paths.get(digest, ()))),
            )

    def relabel(self, labels: Mapping[str, Sequence[Label]]) -> None:
        """Replace what is known about the findings of the named views."""
        write_labels(self._connection, labels)

    def set_brightness(self, found: Mapping[str, bytes]) -> None:
        """Write down how bright views are, by digest."""
        self._connection.executemany(
            "UPDATE views SET brightness = ? WHERE digest = ?", ((value, digest) for digest, value in found.items())
        )

    def labels(self) -> dict[str, tuple[Label, ...]]:
        """Return what is known about every labelled view, in the order of the findings' names."""
        return read_labels(self._connection)


def _facts(view: ViewRecord, case: CaseId) -> dict[str, str | int | float | bytes | None]:
    """Return a view's row, by column."""
    return {
        "digest": view.digest,
        "instance_key": view.keys.instance,
        "case_id": case,
        "position": view.position,
        "sex": view.sex,
        "age": view.age,
        "study_year": view.study_year,
        "device": view.device,
        "height": view.height,
        "width": view.width,
        "spacing_mm": view.spacing_mm,
        "series_key": view.keys.series or None,
        "source_rows": view.source_rows,
        "source_columns": view.source_columns,
        "brightness": view.brightness,
        "burned_in": view.burned_in,
    }
