"""Access to the API server, from a kubeconfig or a pod's files."""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml

from cni.agent.stores.kube import config
from cni.agent.stores.kube.config import Access, access_of
from cni.agent.stores.kube.errors import ApiError
from cni.agent.stores.kube.options import KubeOptions

PEM = "-----BEGIN CERTIFICATE-----\n"
SERVER = "https://10.0.0.1:6443"
OPTIONS = KubeOptions("one", ("", ""), "", "", "", "flannel.alpha.coreos.com/", "/n", set_network_condition=True)


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def kubeconfig(folder: Path, cluster: dict[str, Any], user: dict[str, Any], **others: object) -> str:
    content = {
        "current-context": "b",
        "contexts": [
            {"name": "a", "context": {"cluster": "other", "user": "other"}},
            {"name": "b", "context": {"cluster": "it", "user": "me"}},
        ],
        "clusters": [{"name": "other", "cluster": {}}, {"name": "it", "cluster": {"server": SERVER, **cluster}}],
        "users": [{"name": "me", "user": user}],
        **others,
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def access(path: str, server: str = "") -> Access:
    return access_of(OPTIONS._replace(kubeconfig=path, server=server))


def test_the_current_context_counts(tmp_path: Path) -> None:
    assert access(kubeconfig(tmp_path, {"server": f"{SERVER}/"}, {"token": "t"})) == Access(SERVER, token="t")


def test_json_is_read_as_well(tmp_path: Path) -> None:
    path = Path(kubeconfig(tmp_path, {}, {"token": "t"}))
    path.write_text(json.dumps(yaml.safe_load(path.read_text())))
    assert access(str(path)) == Access(SERVER, token="t")


def test_a_server_of_the_user_s_stands_in_for_the_one_in_the_file(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, {"server": ""}, {})
    with pytest.raises(ApiError, match="cluster 'it': server is missing"):
        access(path)
    given = access(kubeconfig(tmp_path, {"insecure-skip-tls-verify": True}, {}), server="https://other:1/")
    assert given == Access("https://other:1", insecure=True)


def test_files_are_beside_the_kubeconfig_and_data_goes_before_them(tmp_path: Path) -> None:
    for name in ("ca", "cert", "key", "token"):
        (tmp_path / name).write_text("token of the file\n" if name == "token" else f"{PEM}{name}\n")
    files = {"client-certificate": "cert", "client-key": str(tmp_path / "key"), "tokenFile": "token", "token": "t"}
    path = kubeconfig(tmp_path, {"certificate-authority": "ca", "tls-server-name": "kube"}, files)
    result = access(path)
    assert (result.ca, result.server_name) == (f"{PEM}ca\n", "kube")
    assert result.identity == f"{PEM}cert\n\n{PEM}key\n"
    assert result.bearer() == "token of the file"
    data = {f"{key}-data": encoded(f"{PEM}data") for key in ("client-certificate", "client-key")}
    path = kubeconfig(tmp_path, {"certificate-authority": "x", "certificate-authority-data": encoded(f"{PEM}ca")}, data)
    assert (access(path).ca, access(path).identity) == (f"{PEM}ca", f"{PEM}data\n{PEM}data")


def test_a_token_is_what_its_file_says_at_the_moment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    result = access(kubeconfig(tmp_path, {}, {"tokenFile": "token"}))
    assert result.bearer() == "one"
    file.write_text("two")
    assert result.bearer() == "two"
    file.unlink()
    with pytest.raises(ApiError, match=r"token .*/token: No such file"):
        result.bearer()


@pytest.mark.parametrize(
    ("cluster", "user", "others", "error"),
    [
        ({}, {"exec": {"command": "aws"}}, {}, "user 'me': exec not supported"),
        ({}, {"auth-provider": {"name": "gcp"}, "as": "x"}, {}, "user 'me': auth-provider, as not supported"),
        ({}, {"username": "u", "password": "p"}, {}, "user 'me': username, password not supported"),
        ({"proxy-url": "socks5://x"}, {}, {}, "cluster 'it': proxy-url not supported"),
        ({}, {}, {"current-context": ""}, "the file: no name of one of the contexts"),
        ({}, {}, {"current-context": "c"}, "contexts: no context 'c'"),
        ({}, {}, {"clusters": None}, "clusters: no cluster 'it'"),
        ({}, {}, {"users": [{"name": "me"}]}, "users: no user 'me'"),
        ({"certificate-authority": "nowhere"}, {}, {}, "certificate-authority .*/nowhere: No such file"),
        (
            {"certificate-authority-data": "?"},
            {},
            {},
            "cluster 'it': certificate-authority-data: expected PEM in base64",
        ),
        (
            {"certificate-authority-data": encoded("x")},
            {},
            {},
            "cluster 'it': certificate-authority-data: expected PEM",
        ),
        ({"insecure-skip-tls-verify": "yes"}, {}, {}, "cluster 'it': insecure-skip-tls-verify: expected true or false"),
        ({}, {"token": 7}, {}, "user 'me': token: expected a text"),
        ({}, {"client-key-data": encoded(PEM)}, {}, "only one of client-certificate and client-key"),
    ],
)
def test_what_cannot_be_followed_is_reported(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], others: dict[str, Any], error: str
) -> None:
    path = kubeconfig(tmp_path, cluster, user, **others)
    with pytest.raises(ApiError, match=error) as caught:
        access(path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "error"),
    [("a: [secret", "not YAML at line 1"), ("- a", "not a kubeconfig"), ("", "not a kubeconfig")],
)
def test_what_is_no_kubeconfig_is_reported_without_its_secrets(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ApiError, match=error) as caught:
        access(str(path))
    assert "secret" not in str(caught.value)


def test_no_secret_is_reported() -> None:
    assert "secret" not in repr(Access(SERVER, identity="secret", token="secret"))


def test_a_pod_has_the_files_of_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "SERVICE_ACCOUNT", str(tmp_path))
    pod = OPTIONS._replace(service="https://10.96.0.1:443")
    with pytest.raises(ApiError, match=r"CA certificates .*/ca.crt: No such file"):
        access_of(pod)
    (tmp_path / "ca.crt").write_text("")
    with pytest.raises(ApiError, match=r"/ca.crt: not PEM"):
        access_of(pod)
    (tmp_path / "ca.crt").write_text(PEM)
    (tmp_path / "token").write_text("t\n")
    result = access_of(pod)
    assert (result.server, result.ca, result.bearer()) == ("https://10.96.0.1:443", PEM, "t")
    assert access_of(pod._replace(server=f"{SERVER}/")) == result._replace(server=SERVER)


def test_a_token_is_not_sent_where_anybody_could_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "SERVICE_ACCOUNT", str(tmp_path))
    (tmp_path / "token").write_text("t")
    assert access_of(OPTIONS._replace(server="http://127.0.0.1:8001")) == Access("http://127.0.0.1:8001")


def test_outside_of_pods_a_server_may_be_asked_by_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "SERVICE_ACCOUNT", str(tmp_path))
    assert access_of(OPTIONS._replace(server=SERVER)) == Access(SERVER)


def test_certificates_are_verified_unless_the_kubeconfig_says_otherwise() -> None:
    assert Access("http://a").tls() is None
    verified = Access(SERVER).tls()
    assert verified is not None
    assert (verified.verify_mode, verified.check_hostname) == (ssl.CERT_REQUIRED, True)
    unverified = Access(SERVER, insecure=True).tls()
    assert unverified is not None
    assert (unverified.verify_mode, unverified.check_hostname) == (ssl.CERT_NONE, False)


@pytest.mark.parametrize("access", [Access(SERVER, ca="no PEM"), Access(SERVER, identity="no PEM")])
def test_certificates_that_are_none_are_reported(access: Access) -> None:
    with pytest.raises(ApiError, match=f"TLS certificates for {SERVER}: "):
        access.tls()
