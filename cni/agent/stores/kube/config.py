"""The way to the API server: a service account's files in a pod, or a kubeconfig. Read anew for a new connection."""

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
# What would lead elsewhere, or as somebody else, if it were passed over. Programs are not run by the agent.
UNSERVED = {
    "user": ("exec", "auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra"),
    "cluster": ("proxy-url",),
}


class Access(Record):
    """`ca` and `identity` (certificate and key) are PEM texts; a `token_file` is read for each request."""

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
        """The token of this moment, or nothing. Raises ApiError."""
        return _read(self.token_file, "token").strip() if self.token_file else self.token

    def tls(self) -> ssl.SSLContext | None:
        """Raises ApiError."""
        if not self.server.startswith("https:"):
            return None
        try:
            context = context_of(self.ca, self.identity)
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        except (OSError, ValueError) as error:
            raise ApiError(f"the certificates for {self.server}: {error}") from None
        return context


def access_of(options: KubeOptions) -> Access:
    """Raises ApiError."""
    if options.kubeconfig:
        found = _of_kubeconfig(options.kubeconfig)
        return found._replace(server=options.server.rstrip("/") or found.server)
    server = options.server.rstrip("/") or options.service
    if not server.startswith("https:"):
        return Access(server)  # nobody is to overhear a token
    ca, token = os.path.join(SERVICE_ACCOUNT, "ca.crt"), os.path.join(SERVICE_ACCOUNT, "token")
    if options.server and not os.path.exists(token):
        return Access(server)
    return Access(server, ca=_pem(_read(ca, "CA certificates"), ca), token_file=token)


def _of_kubeconfig(path: str) -> Access:
    """As client-go reads it: data goes before files, and a file of a token before the token."""
    config = _Section(_parsed(path), path, "the file")
    context = config.named("contexts", "context", config.text("current-context"))
    cluster = config.named("clusters", "cluster", context.text("cluster"))
    user = (
        config.named("users", "user", context.text("user")) if context.text("user") else _Section({}, path, "no user")
    )
    for section, keys in ((user, UNSERVED["user"]), (cluster, UNSERVED["cluster"])):
        if unserved := [key for key in keys if section.has(key)]:
            raise ApiError(
                f"{path}: {section.what} has {', '.join(unserved)}, which is not served:"
                " certificates, token and tokenFile are"
            )
    server = cluster.text("server").rstrip("/")
    if not server:
        raise ApiError(f"{path}: {cluster.what} has no server")
    if "@" in server:  # a password perhaps, not to be shown
        raise ApiError(f"{path}: the server of {cluster.what} has a user: that is for the kubeconfig's users")
    certificate, key = user.pem("client-certificate"), user.pem("client-key")
    if bool(certificate) != bool(key):
        raise ApiError(f"{path}: {user.what} has only one of client-certificate and client-key")
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
    """One mapping of a kubeconfig; each reader raises ApiError."""

    def __init__(self, members: dict[str, Any], path: str, what: str) -> None:
        self._members, self._path, self.what = members, path, what

    def has(self, key: str) -> bool:
        return bool(self._members.get(key))

    def text(self, key: str) -> str:
        value = self._members.get(key) or ""
        if not isinstance(value, str):
            raise ApiError(f"{self._path}: {key} of {self.what} is not a text")
        return value

    def flag(self, key: str) -> bool:
        value = self._members.get(key) or False
        if not isinstance(value, bool):
            raise ApiError(f"{self._path}: {key} of {self.what} is neither true nor false")
        return value

    def file(self, key: str) -> str:
        """Relative to the kubeconfig's folder."""
        name = self.text(key)
        return os.path.join(os.path.dirname(os.path.abspath(self._path)), name) if name else ""

    def pem(self, key: str) -> str:
        """Empty where there is none."""
        if data := self.text(f"{key}-data"):
            try:
                return _pem(a2b_base64(data).decode("ascii"), "")
            except (ValueError, ApiError):
                raise ApiError(f"{self._path}: {key}-data of {self.what} is not PEM in base64") from None
        name = self.file(key)
        return _pem(_read(name, key), f"{key} {name}") if name else ""

    def named(self, kind: str, inner: str, name: str) -> _Section:
        """The one of a list that has the name."""
        if not name:
            raise ApiError(f"{self._path}: {self.what} does not say which of its {kind} is meant")
        entries = self._members.get(kind) or []
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(inner), dict):
                return _Section(entry[inner], self._path, f"{inner} {name!r}")
        raise ApiError(f"{self._path}: there is no {inner} {name!r}")


def _parsed(path: str) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(_read(path, "kubeconfig"))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        place = f" at line {where.line + 1}" if where is not None else ""
        raise ApiError(f"{path} is not YAML{place}") from None  # the error itself would show what is secret
    if not isinstance(config, dict):
        raise ApiError(f"{path} is not a kubeconfig")
    return config


def _read(path: str, what: str) -> str:
    try:
        return smallfile.read(path).decode()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a text"
        raise ApiError(f"{what} {path}: {why}") from None


def _pem(text: str, what: str) -> str:
    """Without certificates of its own, those that the system trusts would do."""
    if "-----BEGIN " not in text:
        raise ApiError(f"{what} is not PEM")
    return text
