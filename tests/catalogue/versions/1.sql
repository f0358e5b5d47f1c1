PRAGMA user_version = 1;
BEGIN TRANSACTION;
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
INSERT INTO "files" VALUES('/s','a.dcm',1,2,'r','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','','');
INSERT INTO "files" VALUES('/s','b.dcm',1,2,'r','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','','');
INSERT INTO "files" VALUES('/s','c.dcm',1,2,'r','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','','');
INSERT INTO "files" VALUES('/s','x.txt',1,2,'r',NULL,'not-dicom','no prefix');
CREATE TABLE labels (
        digest TEXT NOT NULL REFERENCES views (digest) ON DELETE CASCADE,
        finding TEXT NOT NULL,
        present INTEGER NOT NULL CHECK (present IN (0, 1)),
        source TEXT NOT NULL,
        term TEXT NOT NULL,
        PRIMARY KEY (digest, finding)
    ) STRICT, WITHOUT ROWID;
INSERT INTO "labels" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','Mass',1,'labels.csv:findings','tumour');
INSERT INTO "labels" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','Nodule',0,'labels.csv:findings','');
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
INSERT INTO "meta" VALUES('key-check','key');
CREATE TABLE patients (
        key TEXT PRIMARY KEY,
        id_key TEXT NOT NULL,
        split TEXT NOT NULL
    ) STRICT;
INSERT INTO "patients" VALUES('p1','id-p1','train');
INSERT INTO "patients" VALUES('p2','id-p2','held-out');
CREATE TABLE studies (
        case_id TEXT PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        uid_key TEXT NOT NULL,
        accession_key TEXT NOT NULL,
        patient TEXT NOT NULL REFERENCES patients (key)
    ) STRICT;
INSERT INTO "studies" VALUES('00000000000000000000000000000001','study-1','uid-1','accession-1','p1');
INSERT INTO "studies" VALUES('00000000000000000000000000000003','study-2','uid-2','accession-2','p2');
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
INSERT INTO "views" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','instance-a','00000000000000000000000000000001','PA','F',41,2020,'ACME X',5,4,0.2);
INSERT INTO "views" VALUES('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','instance-b','00000000000000000000000000000001','LATERAL','U',NULL,NULL,'',5,4,NULL);
INSERT INTO "views" VALUES('cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','instance-c','00000000000000000000000000000003','UNKNOWN','M',95,NULL,'',5,4,NULL);
CREATE INDEX studies_of_patient ON studies (patient);
CREATE INDEX views_of_case ON views (case_id);
CREATE INDEX files_of_view ON files (digest);
COMMIT;
