"""How etcd is reached: what the user says of it."""

from __future__ import annotations

from cni.protocol.record import Record


class EtcdOptions(Record):
    """`renew_margin`: minutes before its end at which the own lease is renewed."""

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
