"""Access to the API server: a service account's files in a pod, or a kubeconfig, read for each connection."""

from __future__ import annotations

import os
import ssl
from binascii import a2b_base64
from typing import TYPE_CHECKING, Any

from cni.agent.stores.kube.errors import ApiError
from cni.agent.stores.tls import context_of
from cni.protocol import smallfile
from cni.protocol.record import Record

if TYPE_CHECKING:
    from cni.agent.stores.kube.options import KubeOptions

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
# Keys that change the server or the user: ignoring them would be wrong. The agent does not run programs.
UNSERVED = {
    "user": ("exec", "auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra"),
    "cluster": ("proxy-url",),
}


class Access(Record):
    """A server with credentials: `ca` and `identity` (certificate and key) are PEM texts, `token_file` is read for each
    request.
    """

    server: str
    ca: str = ""
    server_name: str = ""
    insecure: bool = False
    identity: str = ""
    token: str = ""
    token_file: str = ""

    def __repr__(self) -> str:
        return f"Access({self.server!r})"  # never the key or the token

    def bearer(self) -> str:
        """Returns the current token, or an empty text. Raises ApiError."""
        return _read(self.token_file, "token").strip() if self.token_file else self.token

    def tls(self) -> ssl.SSLContext | None:
        """Returns the context of a client; None without TLS. Raises ApiError."""
        if not self.server.startswith("https:"):
            return None
        try:
            context = context_of(self.ca, self.identity)
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        except (OSError, ValueError) as error:
            raise ApiError(f"TLS certificates for {self.server}: {error}") from None
        return context


def access_of(options: KubeOptions) -> Access:
    """Returns how the API server is reached now. Raises ApiError."""
    if options.kubeconfig:
        access = _read_kubeconfig(options.kubeconfig)
        return access._replace(server=options.server.rstrip("/") or access.server)
    server = options.server.rstrip("/") or options.service
    if not server.startswith("https:"):
        return Access(server)  # a token must not be sent in the clear
    ca, token = os.path.join(SERVICE_ACCOUNT, "ca.crt"), os.path.join(SERVICE_ACCOUNT, "token")
    if options.server and not os.path.exists(token):
        return Access(server)
    return Access(server, ca=_pem(_read(ca, "CA certificates"), ca), token_file=token)


def _read_kubeconfig(path: str) -> Access:
    """Reads it as client-go does: data before files, and a token's file before the token. Raises ApiError."""
    config = _Section(_parsed(path), path, "the file")
    context = config.named("contexts", "context", config.text("current-context"))
    cluster = config.named("clusters", "cluster", context.text("cluster"))
    user = (
        config.named("users", "user", context.text("user")) if context.text("user") else _Section({}, path, "no user")
    )
    for section, keys in ((user, UNSERVED["user"]), (cluster, UNSERVED["cluster"])):
        if unserved := [key for key in keys if section.has(key)]:
            raise ApiError(
                f"{path}: {section.title}: {', '.join(unserved)} not supported"
                " (supported are certificates, token and tokenFile)"
            )
    server = cluster.text("server").rstrip("/")
    if not server:
        raise ApiError(f"{path}: {cluster.title}: server is missing")
    if "@" in server:  # perhaps a password, which must not be shown
        raise ApiError(f"{path}: {cluster.title}: server: URL with a user (credentials belong to users)")
    certificate, key = user.pem("client-certificate"), user.pem("client-key")
    if bool(certificate) != bool(key):
        raise ApiError(f"{path}: {user.title}: only one of client-certificate and client-key is set")
    return Access(
        server=server if "://" in server else f"http://{server}",
        ca=cluster.pem("certificate-authority"),
        server_name=cluster.text("tls-server-name"),
        insecure=cluster.flag("insecure-skip-tls-verify"),
        identity=f"{certificate}\n{key}" if certificate else "",
        token=user.text("token"),
        token_file=user.file("tokenFile"),
    )


class _Section:
    """A mapping of a kubeconfig; each reader raises ApiError. `title` names it in errors."""

    def __init__(self, members: dict[str, Any], path: str, title: str) -> None:
        self._members, self._path, self.title = members, path, title

    def has(self, key: str) -> bool:
        return bool(self._members.get(key))

    def text(self, key: str) -> str:
        value = self._members.get(key) or ""
        if not isinstance(value, str):
            raise ApiError(f"{self._path}: {self.title}: {key}: expected a text")
        return value

    def flag(self, key: str) -> bool:
        value = self._members.get(key) or False
        if not isinstance(value, bool):
            raise ApiError(f"{self._path}: {self.title}: {key}: expected true or false")
        return value

    def file(self, key: str) -> str:
        """Returns a path, which may be relative to the kubeconfig's folder; empty without one."""
        name = self.text(key)
        return os.path.join(os.path.dirname(os.path.abspath(self._path)), name) if name else ""

    def pem(self, key: str) -> str:
        """Returns the data, or the content of the file; empty without both."""
        if data := self.text(f"{key}-data"):
            try:
                return _pem(a2b_base64(data).decode("ascii"), "")
            except (ValueError, ApiError):
                raise ApiError(f"{self._path}: {self.title}: {key}-data: expected PEM in base64") from None
        name = self.file(key)
        return _pem(_read(name, key), f"{key} {name}") if name else ""

    def named(self, kind: str, inner: str, name: str) -> _Section:
        """Returns the entry of a list that has the name."""
        if not name:
            raise ApiError(f"{self._path}: {self.title}: no name of one of the {kind}")
        entries = self._members.get(kind) or []
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(inner), dict):
                return _Section(entry[inner], self._path, f"{inner} {name!r}")
        raise ApiError(f"{self._path}: {kind}: no {inner} {name!r}")


def _parsed(path: str) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(_read(path, "kubeconfig"))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        place = f" at line {where.line + 1}" if where is not None else ""
        raise ApiError(f"{path}: not YAML{place}") from None  # the error itself would show secrets
    if not isinstance(config, dict):
        raise ApiError(f"{path}: not a kubeconfig")
    return config


def _read(path: str, title: str) -> str:
    try:
        return smallfile.read(path).decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ApiError(f"{title} {path}: {reason}") from None


def _pem(text: str, title: str) -> str:
    """Returns the text. Raises ApiError if it is not PEM, as without it the system's certificates would be trusted."""
    if "-----BEGIN " not in text:
        raise ApiError(f"{title}: not PEM")
    return text
