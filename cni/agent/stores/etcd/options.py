"""Options of the etcd store."""

from __future__ import annotations

from cni.protocol.record import Record


class EtcdOptions(Record):
    """The endpoints of etcd, and credentials. `renew_margin`: the own lease is renewed these minutes before its end."""

    endpoints: tuple[str, ...]
    prefix: str = "/coreos.com/network"
    cafile: str = ""
    certfile: str = ""
    keyfile: str = ""
    username: str = ""
    password: str = ""
    renew_margin: int = 60

    def __repr__(self) -> str:
        return f"EtcdOptions({self.endpoints!r}, {self.prefix!r}, {self.username!r})"  # never the password
