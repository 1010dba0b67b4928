"""The cluster's certificates and kubeconfig files, made by openssl, and bad ones for tests of credentials.

Used by `controlplane` and `node`, and by tests that want another user, a wrong authority, an expired
certificate or a token. One authority signs everything. Kubernetes takes a client's user name from the
subject's CN and its groups from O: `system:masters` may do anything, a node must be
`O=system:nodes, CN=system:node:NAME`, and the built-in roles name the other components.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.cluster.harness import procs

DAYS = 30
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str = "kecs-test") -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.pair = Pair(folder / "ca.crt", folder / "ca.key")
        procs.run(
            *("openssl", "req", "-x509", *EC, "-days", str(DAYS), "-subj", f"/CN={name}"),
            *("-keyout", self.pair.key, "-out", self.pair.certificate),
        )

    def client(self, user: str, *groups: str) -> Pair:
        """Return a client certificate of a user in these groups."""
        return self._signed(user, _subject(user, groups), "extendedKeyUsage=clientAuth")

    def expired(self, user: str, *groups: str) -> Pair:
        """Return a client certificate that ended a year ago."""
        pair = Pair(self._path(f"expired-{user}", "crt"), self._path(f"expired-{user}", "key"))
        request = pair.certificate.with_suffix(".csr")
        procs.run(
            *("openssl", "req", "-new", *EC, "-subj", _subject(user, groups)),
            *("-keyout", pair.key, "-out", request),
        )
        # `openssl req` of 3.0 cannot date a certificate; `openssl ca` can, and wants a database.
        (self.folder / "index.txt").write_text("")
        settings = self.folder / "ca.conf"
        settings.write_text(
            f"[ca]\ndefault_ca=it\n[it]\ndatabase={self.folder}/index.txt\nnew_certs_dir={self.folder}\n"
            "default_md=sha256\nrand_serial=yes\nunique_subject=no\npolicy=any\nx509_extensions=client\n"
            "[any]\ncommonName=supplied\norganizationName=optional\n[client]\nextendedKeyUsage=clientAuth\n"
        )
        procs.run(
            *("openssl", "ca", "-batch", "-notext", "-config", settings, "-in", request),
            *("-out", pair.certificate, "-cert", self.pair.certificate, "-keyfile", self.pair.key),
            *("-startdate", "20200101000000Z", "-enddate", "20200102000000Z"),
        )
        return pair

    def server(self, name: str, *names: str) -> Pair:
        """Return a server certificate for these addresses and host names."""
        alternatives = ",".join(f"{'IP' if each[0].isdigit() else 'DNS'}:{each}" for each in names)
        return self._signed(
            name, _subject(name, ()), "extendedKeyUsage=serverAuth", f"subjectAltName={alternatives}"
        )

    def _signed(self, name: str, subject: str, *extensions: str) -> Pair:
        pair = Pair(self._path(name, "crt"), self._path(name, "key"))
        procs.run(
            *("openssl", "req", "-x509", *EC, "-days", str(DAYS), "-subj", subject),
            *("-CA", self.pair.certificate, "-CAkey", self.pair.key),
            *("-keyout", pair.key, "-out", pair.certificate),
            *(word for extension in extensions for word in ("-addext", extension)),
        )
        return pair

    def _path(self, name: str, suffix: str) -> Path:
        return self.folder / f"{name.replace(':', '-')}.{suffix}"


def signing_key(path: Path) -> Path:
    """Make the RSA key that signs the tokens of service accounts; return its path."""
    procs.run("openssl", "genrsa", "-out", path, "2048")
    return path


def of_client(pair: Pair) -> dict[str, str]:
    """Return the kubeconfig user of a client certificate, with its data embedded."""
    return {"client-certificate-data": _data(pair.certificate), "client-key-data": _data(pair.key)}


def write_kubeconfig(
    path: Path, server: str, authority: Path | None, user: dict[str, Any], *, context: str = "kecs-test"
) -> Path:
    """Write a kubeconfig with one context; return `path`.

    `user` is the user's entry as it is (`of_client(…)`, `{"token": …}`, `{"exec": …}`); without an
    `authority` the server's certificate is not verified.
    """
    trust = (
        {"certificate-authority-data": _data(authority)} if authority else {"insecure-skip-tls-verify": True}
    )
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": {"server": server, **trust}}],
        "users": [{"name": context, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }
    path.write_text(yaml.safe_dump(content))
    path.chmod(0o600)
    return path


def _subject(user: str, groups: tuple[str, ...]) -> str:
    return "".join(f"/O={group}" for group in groups) + f"/CN={user}"


def _data(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
