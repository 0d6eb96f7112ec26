"""A certificate authority for one control plane, made with the `openssl` program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.cluster.process import Argument, run

_DAYS = "30"

# A file of our own, because the one of the system decides which extensions a certificate gets.
_CONFIG = """\
[req]
distinguished_name = name
prompt = no
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign, digitalSignature
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost, DNS:kubernetes, DNS:kubernetes.default, DNS:kubernetes.default.svc, IP:127.0.0.1, IP:10.96.0.1
"""


@dataclass(frozen=True)
class Pki:
    """The files of one authority, all in one directory."""

    directory: Path

    @property
    def ca(self) -> Path:
        """Certificate of the authority."""
        return self.directory / "ca.crt"

    def certificate(self, name: str) -> Path:
        """Certificate issued under `name`."""
        return self.directory / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Private key that belongs to `name`."""
        return self.directory / f"{name}.key"


def create(directory: Path) -> Pki:
    """Make an authority, certificates `apiserver` and `admin` (group system:masters), and the key `service-account`.

    Raises:
        CommandError: there is no `openssl`, or it failed.
    """
    directory.mkdir(mode=0o700, parents=True)
    config = directory / "openssl.cnf"
    config.write_text(_CONFIG)
    pki = Pki(directory)
    _key(pki.key("ca"))
    _openssl(
        "req -x509 -new -subj /CN=control-plane-ca -extensions ca -days", _DAYS, "-config", config, "-key", pki.key("ca"), "-out", pki.ca
    )
    signer = ("-CA", pki.ca, "-CAkey", pki.key("ca"), "-CAcreateserial")
    for name, subject in (("apiserver", "/CN=kube-apiserver"), ("admin", "/O=system:masters/CN=admin")):
        request = directory / f"{name}.csr"
        _key(pki.key(name))
        _openssl("req -new -config", config, "-subj", subject, "-key", pki.key(name), "-out", request)
        _openssl("x509 -req -extensions leaf -extfile", config, "-days", _DAYS, "-in", request, *signer, "-out", pki.certificate(name))
    _key(pki.key("service-account"))
    return pki


def _key(path: Path) -> None:
    _openssl("ecparam -name prime256v1 -genkey -noout -out", path)


def _openssl(words: str, *arguments: Argument) -> None:
    run(["openssl", *words.split(), *arguments])
