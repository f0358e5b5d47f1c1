"""A real Orthanc on loopback: free ports, its own folder, passwords and AE titles checked; started in about a second."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from base64 import b64encode
from pathlib import Path

import pytest

from provisioning.ports import free_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PASSWORD = "silo:secret-of-the-test"


def different_ports(count: int) -> list[int]:
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


def certificates(folder: Path) -> dict[str, str]:
    """One authority, and one certificate of it for 127.0.0.1 that both sides use; as `tls` in silo.yaml."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import NameOID

    def named(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def usage(*, ca):
        names = ("content_commitment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only")
        signs = {"key_cert_sign": ca, "crl_sign": ca, "digital_signature": not ca, "key_encipherment": not ca}
        return x509.KeyUsage(**dict.fromkeys(names, False), **signs)

    def made(subject, issuer, key, signer, *, ca):
        now = dt.datetime.now(dt.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        builder = (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .add_extension(usage(ca=ca), critical=True)
        )
        return builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root, own = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    (folder / "ca.pem").write_bytes(made("Test CA", "Test CA", root, root, ca=True))
    (folder / "own.pem").write_bytes(made("127.0.0.1", "Test CA", own, root, ca=False))
    (folder / "own.key").write_bytes(own.private_bytes(*form))
    (folder / "own.key").chmod(0o600)
    return {
        "ca_file": str(folder / "ca.pem"),
        "certificate_file": str(folder / "own.pem"),
        "key_file": str(folder / "own.key"),
    }


class Orthanc:
    """One Orthanc process and its folder."""

    def __init__(
        self, folder: Path, *, tls: dict[str, str] | None = None, move_tls: bool = False, move: int | None = None
    ) -> None:
        self.folder, self.tls = folder, tls
        folder.mkdir(parents=True)
        self.http, self.dicom, self.move, self.listen = different_ports(4)
        self.move = move or self.move
        settings = {
            "Name": "test",
            "StorageDirectory": str(folder / "store"),
            "IndexDirectory": str(folder / "store"),
            "HttpPort": self.http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": dict([PASSWORD.split(":")]),
            "DicomAet": "ORTHANC",
            "DicomPort": self.dicom,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowStore": False,
            "DicomModalities": {
                "silo": {"AET": "SILOSCOPE", "Host": "127.0.0.1", "Port": self.move, "UseDicomTls": move_tls},
                "listener": ["LISTENER", "127.0.0.1", self.listen],
            },
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "OverwriteInstances": True,
            "SaveJobs": False,
        }
        if tls:
            settings |= {
                "DicomTlsEnabled": True,
                "DicomTlsCertificate": tls["certificate_file"],
                "DicomTlsPrivateKey": tls["key_file"],
                "DicomTlsTrustedCertificates": tls["ca_file"],
            }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def start(self) -> "Orthanc":
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["Orthanc", str(self.folder / "orthanc.json")], stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(300):
            with contextlib.suppress(OSError):
                self.ask("/system")
                return self
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)
        raise AssertionError("Orthanc does not start")

    def kill(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def ask(self, path: str, content: bytes | None = None, method: str | None = None):
        request = urllib.request.Request(self.url + path, data=content, method=method)  # noqa: S310  (our own http)
        request.add_header("Authorization", "Basic " + b64encode(PASSWORD.encode()).decode())
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")

    def store(self, content: bytes) -> str:
        """Store a file; return Orthanc's id of it."""
        return self.ask("/instances", content)["ID"]

    def send(self, modality: str, instances: list[str]):
        """Have Orthanc send instances with C-STORE."""
        body = {"Resources": instances, "Synchronous": True, "Timeout": 10}
        return self.ask(f"/modalities/{modality}/store", json.dumps(body).encode())


@pytest.fixture(scope="module", autouse=True)
def _orthanc_is_installed():
    if not (shutil.which("Orthanc") and PLUGIN.is_file()):
        pytest.skip("Orthanc with its DICOMweb plugin is not installed (.ci/packages.txt)")
    pytest.importorskip("pynetdicom", reason="the extra pacs is not installed")
    pytest.importorskip("dicomweb_client", reason="the extra pacs is not installed")


@pytest.fixture
def run_orthanc(tmp_path):
    """A function that starts an Orthanc; all end with the test."""
    running = []

    def run(**options):
        running.append(Orthanc(tmp_path / f"orthanc-{len(running)}", **options))
        return running[-1].start()

    yield run
    for orthanc in running:
        orthanc.kill()


@contextlib.contextmanager
def tls_front(certified, port):
    """Serve https before an http port, as hospitals do before an archive; Orthanc's own https crashes here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certified["certificate_file"], certified["key_file"])
    connections = []

    def pour(source, target):
        with contextlib.suppress(OSError):
            while block := source.recv(65536):
                target.sendall(block)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def relay(inner):
        with (
            inner,
            contextlib.suppress(OSError),  # ssl.SSLError too: who does not believe us hangs up
            context.wrap_socket(inner, server_side=True) as client,
            socket.create_connection(("127.0.0.1", port)) as behind,
        ):
            back = threading.Thread(target=pour, args=(behind, client))
            back.start()
            pour(client, behind)
            back.join()

    def serve(listener):
        with contextlib.suppress(OSError):  # the listener is shut
            while True:
                connections.append(threading.Thread(target=relay, args=(listener.accept()[0],)))
                connections[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=serve, args=(listener,))
        accepting.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in connections:
                thread.join(20)


@pytest.fixture
def orthanc(run_orthanc):
    return run_orthanc()


@pytest.fixture
def images(make_dicom, make_picture):
    """Five radiographs of three studies of two patients, and a CT and a secondary capture that nobody asks for."""
    return [
        make_dicom(
            make_picture(40, 32, seed=n),
            StudyInstanceUID=f"1.2.3.{study}",
            SeriesInstanceUID=f"1.2.3.{study}.{n}",
            SOPInstanceUID=f"1.2.3.{study}.{n}.1",
            PatientID=f"P{study // 2}",
            StudyDate=f"2024010{study}",
            AccessionNumber=f"A{study}",
            Modality="DX" if study == 3 else "CR",
            SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1" if study == 3 else "1.2.840.10008.5.1.4.1.1.1",
        )
        for n, study in enumerate((1, 1, 2, 3, 3))
    ]


@pytest.fixture
def other_image(make_dicom):
    return make_dicom(Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2", StudyInstanceUID="1.2.3.9")


@pytest.fixture
def password(tmp_path):
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def sources(password):
    """Settings of a source of every kind that asks, for an Orthanc."""

    def settings(kind, orthanc, **changes):
        common = {"name": "pacs", "patience_s": 20, "timeout_s": 10}
        if kind == "dicomweb":
            url = f"{orthanc.url}/dicom-web"
            return common | {"kind": "dicomweb", "url": url, "password_file": str(password)} | changes
        return (
            common
            | {"kind": "dimse", "host": "127.0.0.1", "port": orthanc.dicom, "ae_title": "ORTHANC"}
            | {"retrieve": kind, "move_port": orthanc.move}
            | changes
        )

    return settings


@pytest.fixture
def pixels():
    """The stored pixels of a DICOM file's bytes, hashed."""

    def of(content: bytes) -> str:
        import pydicom

        return hashlib.sha256(pydicom.dcmread(io.BytesIO(content)).PixelData).hexdigest()

    return of


@pytest.fixture
def certified(tmp_path):
    return certificates(tmp_path)


@pytest.fixture
def environment():
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
