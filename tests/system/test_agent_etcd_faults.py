"""The etcd store where etcd fails, forgets, refuses or holds what makes no sense."""

from __future__ import annotations

import shutil
import subprocess
import threading

import pytest
import urllib3

from cni.agent.model.events import Configured, Failed, Held, Listed
from cni.agent.model.lease import lease_value
from cni.agent.stores.etcd.messages import prefix_range, text64
from tests.machine import until
from tests.system.agent_etcd import (
    DUAL,
    ELSEWHERE,
    NETWORK,
    PREFIX,
    URL,
    Etcd,
    against_etcd,
    lease_of,
    node_of,
    rival,
    store_of,
)

PASSWORD = "a secret of nine words"


@against_etcd
def test_a_store_goes_on_where_it_was_after_an_outage(server: Etcd) -> None:
    """Without listing all again; the last word is no failure."""
    server.configure(NETWORK)
    with store_of(node_of(1)) as recorder:
        key = recorder.wait_held().key
        server.stop()
        recorder.wait_error(URL, "Connection refused")
        server.start(ELSEWHERE)
        other = rival(server, 2, "10.5.250.0/24")
        server.stop()
        server.start()
        until(lambda: set(recorder.leases) == {key, other} and not recorder.failure, "what came meanwhile is told")
        assert len(recorder.of(Listed)) == 1


@against_etcd
def test_all_is_listed_again_after_a_compaction(server: Etcd) -> None:
    server.configure(NETWORK)
    with store_of(node_of(1)) as recorder:
        key = recorder.wait_held().key
        gone, stays = rival(server, 2, "10.5.250.0/24"), rival(server, 3, "10.5.251.0/24")
        until(lambda: set(recorder.leases) == {key, gone, stays}, "all are told")
        server.stop()
        server.start(ELSEWHERE)
        server.delete(f"subnets/{gone}")
        new = rival(server, 4, "10.5.252.0/24")
        server.compact()
        server.stop()
        server.start()
        until(lambda: set(recorder.leases) == {key, stays, new} and not recorder.failure, "what is there is told")
        assert len(recorder.of(Listed)) == 2


@against_etcd
def test_an_etcd_of_an_old_backup_is_followed(server: Etcd) -> None:
    server.configure(NETWORK)
    backup = f"{server.folder}.old"
    with store_of(node_of(1)) as recorder:
        key = recorder.wait_held().key
        server.stop()
        shutil.copytree(server.folder, backup)
        server.start()
        late = rival(server, 2, "10.5.250.0/24")
        server.delete(f"subnets/{key}")
        until(lambda: late in recorder.leases and len(recorder.of(Held)) > 1, "what came after the backup is told")
        server.stop()
        shutil.rmtree(server.folder)
        shutil.move(backup, server.folder)
        server.start()
        until(lambda: set(recorder.leases) == {key}, "what the backup holds is told")
        new = rival(server, 3, "10.5.251.0/24")
        until(lambda: set(recorder.leases) == {key, new}, "what comes now is told")


@against_etcd
def test_a_lease_that_was_deleted_during_an_outage_is_written_again(server: Etcd) -> None:
    server.configure(NETWORK)
    with store_of(node_of(1)) as recorder:
        key = recorder.wait_held().key
        before = server.leases()
        server.stop()
        server.start(ELSEWHERE)
        server.delete(f"subnets/{key}")
        server.compact()
        server.stop()
        server.start()
        until(lambda: server.leases() == before, "it is back")


@against_etcd
def test_the_next_endpoint_serves_where_one_does_not(server: Etcd) -> None:
    server.configure(NETWORK)
    with store_of(node_of(1), url=f"{ELSEWHERE},127.0.0.1:2379") as recorder:
        key = recorder.wait_held().key
        server.stop()
        server.start(ELSEWHERE)
        new = rival(server, 3, "10.5.251.0/24")
        until(lambda: set(recorder.leases) == {key, new}, "the other is followed")


@against_etcd
def test_what_makes_no_sense_is_reported_as_that_and_harms_nobody(server: Etcd) -> None:
    server.configure(NETWORK)
    server.put("subnets/garbage", "x")
    server.put("subnets/10.5.77.0-24", "[]")
    server.put("subnetsX/10.5.78.0-24", lease_value(lease_of(7, "10.5.78.0/24")))
    server.call("kv/put", {"key": text64(f"{PREFIX}/subnets/\xff\0".encode("latin-1")), "value": ""})
    with store_of(node_of(1)) as recorder:
        own = recorder.wait_held()
        good = rival(server, 2, "10.5.250.0/24")
        server.put("subnets/more/garbage", b"\xff")
        server.put("subnets/10.5.79.0-24", '{"PublicIP":"192.0.2.3","BackendType":"vxlan","BackendData":null}')
        until(lambda: "10.5.79.0-24" in recorder.leases, "the last is told")
        read = {key for key, lease in recorder.leases.items() if not isinstance(lease, str)}
        errors = {key: lease for key, lease in recorder.leases.items() if isinstance(lease, str)}
    assert read == {own.key, good}
    assert set(errors) == {"garbage", "more/garbage", "\\xff\0", "10.5.77.0-24", "10.5.79.0-24"}
    assert errors["10.5.77.0-24"] == "the lease is not a JSON object"
    assert errors["10.5.79.0-24"] == "BackendData.VtepMAC: missing"


@against_etcd
def test_a_network_that_cannot_be_used_is_waited_for(server: Etcd) -> None:
    with store_of(node_of(1, dual=True)) as recorder:
        recorder.wait_error(f"{PREFIX}/config is missing")
        server.put("config", "{")
        recorder.wait_error(f"{PREFIX}/config in etcd is not JSON")
        server.configure({"Network": "10.5.0.0/30"})
        recorder.wait_error("10.5.0.0/30 is too small")
        server.configure(DUAL)
        recorder.wait_held()


@against_etcd
def test_a_network_that_is_spoiled_stays_as_it_was_and_a_better_one_is_taken(server: Etcd) -> None:
    server.configure(NETWORK)
    with store_of(node_of(1)) as recorder:
        own = recorder.wait_held()
        server.delete("config")
        recorder.wait_error("missing")
        server.configure({**NETWORK, "Network": "nonsense"})
        recorder.wait_error("nonsense")
        assert server.leases() == {own.key: lease_value(own)}
        server.configure({**NETWORK, "Network": "10.66.0.0/16"})
        until(lambda: len(recorder.of(Configured)) == 2, "the new network is told")
        recorder.store.register(node_of(1))
        until(
            lambda: recorder.held is not None and recorder.held.lease.key.startswith("10.66."), "a lease of it is held"
        )
        moved = recorder.wait_held()
        assert server.leases() == {moved.key: lease_value(moved)}


def with_users(server: Etcd) -> None:
    """The node may read the configuration and write leases, no more."""
    config, leases = {"key": text64(f"{PREFIX}/config".encode())}, prefix_range(f"{PREFIX}/subnets/".encode())
    for user in ("root", "node"):
        server.call("auth/user/add", {"name": user, "password": PASSWORD})
        server.call("auth/role/add", {"name": user})
        server.call("auth/user/grant", {"user": user, "role": user})
    server.call("auth/role/grant", {"name": "node", "perm": {"permType": "READ", **config}})
    server.call("auth/role/grant", {"name": "node", "perm": {"permType": "READWRITE", **leases}})
    server.call("auth/enable", {})


@against_etcd
def test_a_user_of_few_rights_serves_even_after_tokens_are_forgotten(server: Etcd) -> None:
    server.configure(NETWORK)
    with_users(server)
    with store_of(node_of(1), username="node", password=PASSWORD) as recorder:
        recorder.wait_held()
        server.stop()
        server.start()
        changed = node_of(9)
        recorder.store.register(changed)
        until(
            lambda: (
                recorder.held is not None
                and recorder.held.lease.endpoints[0].public_ip == changed.addresses[0].public_ip
            ),
            "held",
        )
        until(
            lambda: recorder.held is not None and recorder.leases == {recorder.held.lease.key: recorder.held.lease},
            "followed",
        )


@against_etcd
def test_a_wrong_password_is_reported_without_it(server: Etcd) -> None:
    server.configure(NETWORK)
    with_users(server)
    with store_of(node_of(1), username="node", password="guessed") as recorder:
        recorder.wait_error("user 'node'", "invalid user ID or password")
    with store_of(node_of(1)) as silent:
        silent.wait_error("user name is empty")
    with store_of(node_of(1), username="node", password=PASSWORD, prefix="/elsewhere") as curious:
        curious.wait_error("permission denied")
    assert not any("guessed" in str(news) or PASSWORD in str(news) for news in [*recorder.events, *curious.events])


@against_etcd
def test_a_user_where_none_is_needed_does_no_harm(server: Etcd) -> None:
    server.configure(NETWORK)
    with store_of(node_of(1), username="node", password=PASSWORD) as recorder:
        recorder.wait_held()


def certificate(name: str, issuer: str = "") -> None:
    """NAME.crt and NAME.key in /run/tls; without an issuer it is an authority."""
    subprocess.run(["mkdir", "-p", "/run/tls"], check=True)
    new = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    ours = ["-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt"]
    signed = ["-CA", f"{issuer}.crt", "-CAkey", f"{issuer}.key", "-addext", "subjectAltName=IP:127.0.0.1"]
    usage = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth,clientAuth"]
    command = [*new, *ours, *([*signed, *usage] if issuer else [])]
    subprocess.run(command, cwd="/run/tls", check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="absent: openssl")
@against_etcd
def test_tls_with_certificates_of_both_sides(server: Etcd) -> None:
    server.configure(NETWORK)
    server.stop()
    for name, issuer in (("ca", ""), ("stranger", ""), ("server", "ca"), ("node", "ca")):
        certificate(name, issuer)
    ca, crt, key = (f"/run/tls/{file}" for file in ("ca.crt", "node.crt", "node.key"))
    server.http = urllib3.PoolManager(retries=False, ca_certs=ca, cert_file=crt, key_file=key)
    files = ["--cert-file=/run/tls/server.crt", "--key-file=/run/tls/server.key", f"--trusted-ca-file={ca}"]
    server.start(URL.replace("http", "https"), *files, "--client-cert-auth")
    with store_of(node_of(1), url=server.url, cafile=ca, certfile=crt, keyfile=key) as recorder:
        own = recorder.wait_held().key
        other = rival(server, 2, "10.5.250.0/24")
        until(lambda: set(recorder.leases) == {own, other}, "changes are followed")
    for cafile, expected in (("stranger.crt", "certificate verify failed"), ("none.crt", "No such file")):
        with store_of(
            node_of(1), url=server.url, cafile=f"/run/tls/{cafile}", certfile=crt, keyfile=key
        ) as distrustful:
            distrustful.wait_error(expected)
    with store_of(node_of(1), url=server.url, cafile=ca) as nameless:
        nameless.wait_error("a client's certificate?")
    with store_of(node_of(1)) as plain:
        plain.wait_error("https?")


@against_etcd
def test_an_etcd_without_its_gateway_is_reported_as_that(server: Etcd) -> None:
    server.stop()
    server.start("", "--enable-grpc-gateway=false")
    with store_of(node_of(1)) as recorder:
        recorder.wait_error("JSON gateway", "--enable-grpc-gateway=false")


@against_etcd
def test_a_closed_store_says_nothing_and_leaves_no_thread(server: Etcd) -> None:
    server.configure(NETWORK)
    with store_of(node_of(1)) as recorder:
        key = recorder.wait_held().key
    count = len(recorder.events)
    rival(server, 2, "10.5.250.0/24")
    until(lambda: threading.active_count() == 1, "the threads are gone")
    assert (len(recorder.events), len(recorder.of(Failed))) == (count, 0)
    assert key in server.leases()
