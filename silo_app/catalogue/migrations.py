"""The catalogue's tables, as numbered steps: each brings the catalogue of one version to the next.

A step that has been in a release is never changed: catalogues in hospitals have gone through it. To change the tables,
append a step with the next number, add its fingerprint to tests/catalogue/test_migrations.py, and keep in mind that its
statements are split at semicolons. `PRAGMA user_version` of a catalogue is the number of its last step.
"""

import hashlib
from dataclasses import dataclass

__all__ = ["LATEST", "MIGRATIONS", "Migration"]


@dataclass(frozen=True, slots=True)
class Migration:
    """One step."""

    number: int
    why: str
    script: str

    @property
    def fingerprint(self) -> str:
        """Which script this is, 16 hex digits."""
        return hashlib.sha256(self.script.encode()).hexdigest()[:16]


MIGRATIONS = (
    Migration(
        1,
        "what a silo holds: patients, studies, views, labels, files",
        """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE patients (
        key TEXT PRIMARY KEY,
        id_key TEXT NOT NULL,
        split TEXT NOT NULL
    ) STRICT;
    -- Rows of patients and studies stay when their images go: a study that comes back has its case id and its split.
    CREATE TABLE studies (
        case_id TEXT PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        uid_key TEXT NOT NULL,
        accession_key TEXT NOT NULL,
        patient TEXT NOT NULL REFERENCES patients (key)
    ) STRICT;
    CREATE INDEX studies_of_patient ON studies (patient);
    CREATE TABLE views (
        digest TEXT PRIMARY KEY,
        instance_key TEXT NOT NULL UNIQUE,
        case_id TEXT NOT NULL REFERENCES studies (case_id),
        position TEXT NOT NULL,
        sex TEXT NOT NULL,
        age INTEGER,
        study_year INTEGER,
        device TEXT NOT NULL,
        height INTEGER NOT NULL,
        width INTEGER NOT NULL,
        spacing_mm REAL
    ) STRICT;
    CREATE INDEX views_of_case ON views (case_id);
    CREATE TABLE labels (
        digest TEXT NOT NULL REFERENCES views (digest) ON DELETE CASCADE,
        finding TEXT NOT NULL,
        present INTEGER NOT NULL CHECK (present IN (0, 1)),
        source TEXT NOT NULL,
        term TEXT NOT NULL,
        PRIMARY KEY (digest, finding)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE files (
        source TEXT NOT NULL,
        path TEXT NOT NULL,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        recipe TEXT NOT NULL,
        digest TEXT REFERENCES views (digest),
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        PRIMARY KEY (source, path),
        CHECK ((digest IS NULL) = (reason <> ''))
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX files_of_view ON files (digest);
    """,
    ),
    Migration(
        2,
        "series, the size and brightness of images, and where and when every label came from",
        """
    CREATE TABLE series (
        key TEXT PRIMARY KEY,
        case_id TEXT NOT NULL REFERENCES studies (case_id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX series_of_case ON series (case_id);
    ALTER TABLE views ADD COLUMN series_key TEXT REFERENCES series (key);
    ALTER TABLE views ADD COLUMN source_rows INTEGER;
    ALTER TABLE views ADD COLUMN source_columns INTEGER;
    -- How often each of 32 equal ranges of brightness occurs: uint32 (32,), little-endian.
    ALTER TABLE views ADD COLUMN brightness BLOB;
    CREATE INDEX views_of_series ON views (series_key);
    CREATE TABLE origins (
        id INTEGER PRIMARY KEY,
        source TEXT NOT NULL,
        preset TEXT NOT NULL,
        digest TEXT NOT NULL,
        since TEXT NOT NULL,
        UNIQUE (source, preset, digest)
    ) STRICT;
    ALTER TABLE labels ADD COLUMN origin INTEGER REFERENCES origins (id);
    """,
    ),
    Migration(
        3,
        "the study of a case, sealed, for the hospital that owns it (`vault.Vault`)",
        """
    CREATE TABLE crosswalk (
        case_id TEXT PRIMARY KEY REFERENCES studies (case_id),
        sealed BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    ),
    Migration(
        4,
        "studies and patients that the hospital took out, and that no ingest brings back",
        """
    CREATE TABLE recalls (
        kind TEXT NOT NULL CHECK (kind IN ('study', 'patient')),
        key TEXT NOT NULL,
        since TEXT NOT NULL,
        PRIMARY KEY (kind, key)
    ) STRICT, WITHOUT ROWID;
    """,
    ),
    Migration(
        5,
        "whether a picture seems to name its patient; without a value nobody looked",
        """
    ALTER TABLE views ADD COLUMN burned_in INTEGER CHECK (burned_in IN (0, 1));
    """,
    ),
    Migration(
        6,
        "what was taken out is known again when the archive corrects whose it is",
        """
    CREATE TABLE recalled_names (
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        PRIMARY KEY (name, kind, key),
        FOREIGN KEY (kind, key) REFERENCES recalls (kind, key) ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX names_of_recall ON recalled_names (kind, key);
    CREATE INDEX studies_of_uid ON studies (uid_key);
    CREATE INDEX patients_of_id ON patients (id_key);
    INSERT INTO recalled_names
        SELECT s.uid_key, r.kind, r.key FROM recalls r
        JOIN studies s ON r.key = CASE r.kind WHEN 'study' THEN s.key ELSE s.patient END
        WHERE s.uid_key <> '' AND s.uid_key NOT IN (SELECT o.uid_key FROM studies o JOIN views USING (case_id))
        UNION SELECT p.id_key, r.kind, r.key FROM recalls r JOIN patients p ON r.key = p.key
        WHERE r.kind = 'patient' AND p.id_key <> '';
    """,
    ),
    Migration(
        7,
        "which image a duplicate is of, so that it is read when nothing holds that image any more",
        """
    ALTER TABLE files ADD COLUMN instance_key TEXT NOT NULL DEFAULT '';
    """,
    ),
)
"""Every step, in the order of its number."""

LATEST = MIGRATIONS[-1].number
"""The version of a catalogue that this Siloscope writes."""
