"""Secrets, and names of others' things, which a report for a bug must not have."""

from __future__ import annotations

import json

import pytest

from cni.diag.report.contents import FILE_BYTES, bounded
from cni.diag.report.redact import REDACTED, Redactor

PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIBplanted\nplanted==\n-----END RSA PRIVATE KEY-----"
TOKEN = "eyJhbGciOiJSUzI1NiIsImtpZCI6IlBMQU5URUQifQ"
KEY = "wJalrXUtnFEMI8K7MDENGbPxRfiCYPLANTEDKEY0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:planted@192.0.2.1:2379/v3: refused", "https://***@192.0.2.1:2379/v3: refused"),
        ("Authorization: Bearer planted-token x", f"Authorization: {REDACTED} {REDACTED} x"),
        ("password=planted level=info", f"password={REDACTED} level=info"),
        ("etcd-password: 'planted'", f"etcd-password: '{REDACTED}'"),
        ("podwired --etcd-password planted --verbose", f"podwired --etcd-password {REDACTED} --verbose"),
        ("--token planted", f"--token {REDACTED}"),
        ('{"password":"planted", "a": 1}', f'{{"password":"{REDACTED}", "a": 1}}'),
        (r'{"log":"{\"token\": \"planted\"}"}', rf'{{"log":"{{\"token\": \"{REDACTED}\"}}"}}'),
        ("password: 'planted with planted' next", f"password: '{REDACTED}' next"),
        (r'"a\nBearer planted"', rf'"a\nBearer {REDACTED}"'),
        ("AWS_ACCESS_KEY_ID=planted", f"AWS_ACCESS_KEY_ID={REDACTED}"),
        (f"before {PEM} after", f"before {REDACTED} after"),
        (f"key {PEM[:50]}", f"key {REDACTED}"),
        (TOKEN, REDACTED),
        (f'"{KEY}",', f'"{REDACTED}",'),
    ],
)
def test_what_looks_like_a_secret_is_removed_from_a_text(text: str, shown: str) -> None:
    assert Redactor().text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "10.1.2.2/29 dev vethd08aa61005e mtu 1450 80/tcp /run/podwire/podwired.sock fd00:244::/64",
        '{"masquerade": "10.244.1.0/29", "containerID": "0123456789abcdef0123456789abcdef0123456789abcdef"}',
        "net.ipv4.ip_forward=1; table inet podwire-policy; kube-system/coredns",
    ],
)
def test_what_is_needed_to_find_a_cause_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_values_whose_keys_name_secrets_are_removed_wherever_they_are() -> None:
    document = {
        "plugins": [{"type": "calico", "kubernetes": {"k8s_auth_token": "planted"}, "etcd_key": "planted"}],
        "env": {"HTTP_PROXY": "planted"},
        "nerdctlLabels": {"com.example.planted": "x"},
        "environment": ["A=planted"],
        "key": "10.244.2.0-24",
    }
    shown = Redactor().value(document)
    assert "planted" not in json.dumps(shown)
    assert (shown["plugins"][0]["type"], shown["key"], shown["env"]) == (
        "calico",
        "10.244.2.0-24",
        {"HTTP_PROXY": REDACTED},
    )


def test_a_name_has_one_pseudonym_in_all_texts() -> None:
    redactor = Redactor()
    redactor.learn_pod("acmeshop/frontend-0")
    redactor.learn("node", "db")
    first = redactor.text("acmeshop/frontend-0 of node db; dbus stays, frontend-0.acmeshop.svc, db.")
    assert first == "namespace-1/pod-2 of node node-3; dbus stays, pod-2.namespace-1.svc, node-3."
    assert redactor.text("pod=acmeshop/frontend-0") == "pod=namespace-1/pod-2"
    assert redactor.text("myfrontend-0x, mydb") == "mypod-2x, mydb"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pod default/planted-0 dropped", "pod default/pod-1 dropped"),
        ('pods "planted" is forbidden', 'pods "pod-1" is forbidden'),
        ("GET /api/v1/namespaces/planted/pods/web-0: 403", "GET /api/v1/namespaces/namespace-1/pods/pod-2: 403"),
        ('User "system:serviceaccount:planted:x"', 'User "system:serviceaccount:namespace-1:x"'),
        ("dial etcd.planted.example:2379: refused", "dial host-1:2379: refused"),
        ('{"node":"planted","k8s.pod.name":"planted-0"}', '{"node":"node-1","k8s.pod.name":"pod-2"}'),
        ("pod_name=planted nodeName=planted-0", "pod_name=pod-1 nodeName=node-2"),
    ],
)
def test_names_are_replaced_wherever_programs_write_them(text: str, shown: str) -> None:
    assert Redactor().text(text) == shown


def test_pods_policies_and_hosts_that_nobody_has_named_are_found_in_texts() -> None:
    shown = Redactor().text(
        'msg="policy acmeshop/deny-all: closed" url=https://api.acme.example:6443/x api.acme.example'
    )
    assert "acme" not in shown
    assert "deny-all" not in shown


def test_public_names_and_numbers_are_no_secrets() -> None:
    redactor = Redactor()
    for name in ("default", "kube-system", "192.0.2.1", "10.244.2.0-24", "10.244.58.0-24&fd00:244:0:5c::-64", "", "x"):
        redactor.learn("node", name)
    text = "default kube-system 192.0.2.1 10.244.2.0-24 x"
    assert redactor.text(text) == text


def test_of_a_long_text_the_end_is_kept() -> None:
    data = bounded("x" * FILE_BYTES + "the end")
    assert len(data) < FILE_BYTES + 100
    assert data.endswith(b"the end")
    assert bounded("short") == b"short"
