"""How an API server is reached and who we are to it: the one notion of credentials of this program.

Synchronous and safe to use from several threads. The agent uses it on worker threads (`kecs.kube.upgrade`),
the control plane in `kecs.kube.client`. It must not import an HTTP client: the agent's memory is counted in
megabytes. Credentials are never logged and never part of a message.
"""

from __future__ import annotations

import base64
import datetime
import logging
import os
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from kecs.errors import ExitCode, KecsError
from kecs.kube import certificate, exec_plugin, pem, proxy
from kecs.kube.errors import NoCredentials
from kecs.kube.kubeconfig import Chosen, Plugin, choose

TOKEN_FILE_AGE = 60.0
"""Seconds after which a token file is read again (client-go, transport/token_source.go)."""
EXPIRY_MARGIN = 30.0
"""Seconds before a plugin's credentials expire at which it is asked for new ones; a quarter of the time
left at issue where that is shorter."""

_log = logging.getLogger(__name__)


class Access:
    """The API server of one kubeconfig context, and what to present to it."""

    def __init__(self, chosen: Chosen, environ: Mapping[str, str] | None = None) -> None:
        self._chosen = chosen
        self._cluster = chosen.cluster
        self._user = chosen.user
        self._environ = os.environ if environ is None else environ
        self.context = chosen.name
        self.kubeconfig = chosen.source
        """The file; where $KUBECONFIG named several, all of them joined as there. `load` takes it again."""
        parts = _url(self._cluster.server)
        self.server = parts.geturl()
        """The server's URL; it may have a path (Rancher's has)."""
        self.scheme = parts.scheme
        self.host: str = parts.hostname or ""
        self.port: int = parts.port or (443 if parts.scheme == "https" else 80)
        self.path: str = parts.path
        """What comes before `/api`; mostly empty."""
        self.server_hostname = self._cluster.tls_server_name or self.host
        """The name that the server's certificate must have, and that TLS tells the server."""
        self.proxy = proxy.choose(self._cluster.proxy_url, self.scheme, self.host, self.port, self._environ)
        self._lock = threading.RLock()
        try:
            self._authority = self._authority_pem()
            self._pair = _own_pair(chosen)
            self._tls = self._make_tls(self._pair)
        except pem.UnusableError as error:
            raise _unusable(self.context, str(error)) from error
        _refuse_the_unusable(chosen, self._pair)
        self._generation = 0
        self._issued: exec_plugin.Issued | None = None
        self._issued_until = 0.0
        self._file_token = ""
        self._file_read_at = -TOKEN_FILE_AGE
        self._not_taken = ""
        """Why what a file says now was not taken, as it was logged last."""

    @classmethod
    def load(cls, kubeconfig: Path | None = None, context: str | None = None) -> Access:
        """Return the access that `context` (None: the current one) of a kubeconfig gives.

        None stands for $KUBECONFIG, or else `~/.kube/config`. Raises `KecsError`, exit code 5, that names
        what is missing. Nothing is connected to and no plugin run yet.
        """
        return cls(choose(kubeconfig, context))

    def __repr__(self) -> str:
        return f"Access({self.context!r}, {self.server!r})"

    @property
    def generation(self) -> int:
        """Counts up whenever new connections present another client certificate than older ones."""
        return self._generation

    @property
    def expired(self) -> datetime.datetime | None:
        """Since when our client certificate has expired; None when it has not, or there is none."""
        pair = self._pair  # without the lock: a plugin may be running for as long as it likes
        end = certificate.not_after(pair.certificate) if pair else None
        return end if end is not None and end < datetime.datetime.now(datetime.UTC) else None

    @property
    def kind(self) -> str:
        """How we say who we are, in words: for messages."""
        user = self._user
        if user.token_file:
            return f"the token in {self._user_path(user.token_file)}"
        if user.token:
            return "the token in the kubeconfig"
        if user.exec is not None:
            return f"the credential plugin {user.exec.command!r}"
        if user.username:
            return "user name and password"
        return "the client certificate" if self._pair else "no credentials"

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return the TLS settings, the same object until `generation` changes; None for a plain http server.

        Blocking, as `headers`. Raises `NoCredentials`.
        """
        return self.presented()[0]

    def presented(self) -> tuple[ssl.SSLContext | None, int]:
        """Return `ssl_context` and the `generation` that it is of. Blocking. Raises `NoCredentials`."""
        if self.scheme != "https":
            return None, self._generation
        with self._lock:
            self._refresh()
            return self._tls, self._generation

    def headers(self) -> dict[str, str]:
        """Return the request headers that say who we are.

        Blocking: may read a token file or run the credential plugin, or wait for another thread that does.
        Raises `NoCredentials`.
        """
        with self._lock:
            self._refresh()
            return self._headers()

    def headers_at_once(self) -> dict[str, str] | None:
        """Return `headers`, or None when that would have to wait for anything: for an event loop."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            return None if self._is_due() else self._headers()
        finally:
            self._lock.release()

    def renew(self, refused: Mapping[str, str] | None = None, generation: int | None = None) -> bool:
        """Get new credentials after a 401; tell whether there is something new to try.

        `refused` are the headers that were refused, on a connection of `generation`: when another thread has
        renewed since, nothing is done. Blocking. Raises `NoCredentials`.
        """
        with self._lock:
            if generation is not None and generation != self._generation:
                return True
            if refused is not None and refused.get("Authorization") != self._authorization().get(
                "Authorization"
            ):
                return True
            if self._take_new_login():
                return True
            if self._user.token_file:
                before = self._file_token
                self._read_token_file()
                return self._file_token != before
            if self._user.exec is not None:
                self._issued = None
                self._refresh()
                return True
            return self._reload_own_pair()

    # What we are

    def _headers(self) -> dict[str, str]:
        return {**self._impersonation(), **self._authorization()}

    def _authorization(self) -> dict[str, str]:
        token = self._file_token or self._user.token or (self._issued.token if self._issued else "")
        if token:
            return {"Authorization": f"Bearer {token}"}
        if self._user.username:
            both = f"{self._user.username}:{self._user.password}".encode()
            return {"Authorization": "Basic " + base64.b64encode(both).decode("ascii")}
        return {}

    def _impersonation(self) -> dict[str, str]:
        """Return `as` and its like as headers (Kubernetes, "User impersonation").

        Several groups would need one header several times; they are refused when the kubeconfig is loaded.
        """
        user = self._user
        named = {
            "Impersonate-User": user.impersonate,
            "Impersonate-Uid": user.impersonate_uid,
            "Impersonate-Group": (user.impersonate_groups or [""])[0],
            **{
                f"Impersonate-Extra-{quote(key, safe='')}": values[0]
                for key, values in (user.impersonate_extra or {}).items()
                if values
            },
        }
        return {name: value for name, value in named.items() if value}

    def _take_new_login(self) -> bool:
        """Read the kubeconfig again and take who we are by it now; tell whether that is somebody else.

        That is what a new login changes where it writes a token or a certificate into the kubeconfig. What
        cannot be read or used, as while it is being written, leaves all as it is.
        """
        try:
            found = choose(self.kubeconfig, self.context)
            if not self._is_another_login(found):
                return False
            pair = _own_pair(found)
            _refuse_the_unusable(found, pair)
            self._present(pair)
        except (KecsError, pem.UnusableError) as error:
            self._go_on(f"what its kubeconfig says now is not taken: {error}")
            return False
        # The cluster stays as it was loaded: it is to this server that requests go.
        self._chosen = replace(self._chosen, user=found.user, user_folder=found.user_folder)
        self._user = found.user
        self._issued, self._file_token, self._file_read_at = None, "", -TOKEN_FILE_AGE
        _log.info("context %r: the kubeconfig has a new login: %s", self.context, self.kind)
        return True

    def _is_another_login(self, found: Chosen) -> bool:
        """Tell whether a kubeconfig that was read again has other credentials for the same server."""
        ours = self._chosen
        if (found.user, found.user_folder) == (ours.user, ours.user_folder):
            return False
        if found.source != ours.source:
            self._go_on(f"of its kubeconfig files {ours.source} only {found.source} can be found")
            return False
        if (server := _url(found.cluster.server).geturl()) != self.server:
            self._go_on(f"it leads to {server} now: `kecs stop` and `kecs start` look at that")
            return False
        return True

    def _go_on(self, why: str) -> None:
        """Log why credentials stay as they are, once and not at each 401."""
        if why != self._not_taken:
            self._not_taken = why
            _log.warning("context %r goes on with %s that it has: %s", self.context, self.kind, why)

    def _refresh(self) -> None:
        """Bring what may be out of date up to date. The lock is held. Raises `NoCredentials`."""
        try:
            self._bring_up_to_date()
        except NoCredentials:
            # Without credentials no request is sent, so no 401 would ever say that there is a new login.
            if not self._take_new_login():
                raise
            self._bring_up_to_date()

    def _bring_up_to_date(self) -> None:
        if self._token_file_is_due():
            self._read_token_file()
        if self._user.exec is not None and self._plugin_is_due():
            self._run_plugin(self._user.exec)

    def _read_token_file(self) -> None:
        path = self._user_path(self._user.token_file)
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            if self._file_token:
                return  # it is being replaced: the last one read may still be good
            why = getattr(error, "strerror", None) or type(error).__name__
            raise NoCredentials(f"the token file {path} cannot be read: {why}") from error
        if not token and not self._file_token:
            raise NoCredentials(f"the token file {path} is empty")
        self._file_token = token or self._file_token
        self._file_read_at = time.monotonic()

    def _is_due(self) -> bool:
        """Tell whether something is out of date. The lock is held."""
        return self._token_file_is_due() or (self._user.exec is not None and self._plugin_is_due())

    def _token_file_is_due(self) -> bool:
        return bool(self._user.token_file) and time.monotonic() - self._file_read_at >= TOKEN_FILE_AGE

    def _plugin_is_due(self) -> bool:
        return self._issued is None or time.time() >= self._issued_until

    def _run_plugin(self, plugin: Plugin) -> None:
        issued = exec_plugin.run(plugin, self._chosen.user_folder, self._cluster_info(), self._environ)
        if issued.certificate:
            try:
                self._present(pem.Pair(issued.certificate, issued.key))
            except pem.UnusableError as error:
                raise exec_plugin.misbehaved(plugin, str(error)) from error
        now = time.time()
        if issued.expires is None:
            self._issued_until = float("inf")
        else:
            left = max(issued.expires - now, 0.0)
            self._issued_until = issued.expires - min(EXPIRY_MARGIN, left / 4)
        self._issued = issued

    def _cluster_info(self) -> dict[str, Any]:
        """Return what a plugin is told about the cluster (client.authentication.k8s.io/v1, `Cluster`)."""
        cluster = self._cluster
        info = {
            "server": cluster.server,
            "tls-server-name": cluster.tls_server_name,
            "insecure-skip-tls-verify": cluster.insecure_skip_tls_verify,
            "certificate-authority-data": base64.b64encode(self._authority.encode()).decode("ascii"),
            "proxy-url": cluster.proxy_url,
            "config": cluster.plugin_config(),
        }
        return {name: value for name, value in info.items() if value}

    # TLS

    def _present(self, pair: pem.Pair | None) -> None:
        """From now on present `pair`; connections made before present what they presented.

        Raises `pem.UnusableError` for one that TLS has no use for, and then presents what it did before.
        """
        if pair != self._pair:
            self._tls = self._make_tls(pair)
            self._pair = pair
            self._generation += 1

    def _reload_own_pair(self) -> bool:
        """Read our certificate's files again; tell whether they changed.

        Certificate and key are replaced one after the other: between the two they are of no use yet.
        """
        before = self._generation
        if self._user.client_certificate or self._user.client_key:
            try:
                self._present(_own_pair(self._chosen))
            except pem.UnusableError as error:
                self._go_on(str(error))
        return self._generation != before

    def _make_tls(self, pair: pem.Pair | None) -> ssl.SSLContext | None:
        """Return TLS settings that present `pair`; None for a plain http server.

        Raises `pem.UnusableError`.
        """
        if self.scheme != "https":
            return None
        tls = ssl.create_default_context(cadata=self._authority or None)
        # Python 3.13 turns this on. It refuses certificates without an Authority Key Identifier, which many
        # clusters' own authorities make and Go accepts.
        tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self._cluster.insecure_skip_tls_verify:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        tls.set_alpn_protocols(["http/1.1"])  # an Upgrade does not exist in HTTP/2
        if pair is not None:
            pem.load_pair(tls, pair)
        return tls

    def _authority_pem(self) -> str:
        cluster = self._cluster
        text = pem.read(
            cluster.certificate_authority_data,
            cluster.certificate_authority,
            self._chosen.cluster_folder,
            "certificate-authority",
        )
        if text:
            try:
                ssl.create_default_context(cadata=text)
            except (ssl.SSLError, ValueError) as error:
                raise pem.UnusableError("its certificate authority is not a PEM certificate") from error
        return text

    def _user_path(self, name: str) -> Path:
        return self._chosen.user_folder / name


def _own_pair(chosen: Chosen) -> pem.Pair | None:
    """Return the pair that a kubeconfig has itself. Raises `pem.UnusableError`."""
    user, folder = chosen.user, chosen.user_folder
    chain = pem.read(user.client_certificate_data, user.client_certificate, folder, "client-certificate")
    key = pem.read(user.client_key_data, user.client_key, folder, "client-key")
    if bool(chain) != bool(key):
        raise pem.UnusableError("it has a client certificate without its key, or a key alone")
    return pem.Pair(chain, key) if chain else None


def _refuse_the_unusable(chosen: Chosen, pair: pem.Pair | None) -> None:
    """Raise `KecsError` for what would not do what the kubeconfig asks; `pair` is its own."""
    user = chosen.user
    if user.exec is not None:
        exec_plugin.check(user.exec)
    elif user.auth_provider is not None and not (user.token or user.token_file or pair):
        name = user.auth_provider.get("name", "auth-provider")
        raise _unusable(
            chosen.name,
            f"it uses the auth provider {name!r}, which Kubernetes removed in 1.26",
            "get a kubeconfig with an `exec` plugin from your provider",
        )
    several = [user.impersonate_groups or [], *(user.impersonate_extra or {}).values()]
    if any(len(values) > 1 for values in several):
        raise _unusable(chosen.name, "it impersonates several groups, which KECS cannot", "name one group")


def _url(server: str) -> SplitResult:
    try:
        parts = urlsplit((server if "://" in server else f"https://{server}").rstrip("/"))
        _ = parts.port
    except ValueError as error:
        raise KecsError(
            f"the kubeconfig's server {server!r} is not a URL", None, ExitCode.UNREACHABLE
        ) from error
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise KecsError(
            f"the kubeconfig's server {server!r} is not an http or https URL", None, ExitCode.UNREACHABLE
        )
    return parts


def _unusable(context: str, why: str, hint: str | None = None) -> KecsError:
    return KecsError(
        f"context {context!r} of the kubeconfig cannot be used: {why}",
        hint or "see `kubectl config view`; get the cluster's kubeconfig again",
        ExitCode.UNREACHABLE,
    )
