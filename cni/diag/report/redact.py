"""Removes secrets from what a report holds, and gives names of pods, nodes and hosts pseudonyms.

A name has the same pseudonym in all files of a report, and another one in the next report. What is not certain to be
harmless is removed: reports may be published.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cni.agent.secrets import without_credentials
from cni.protocol.address import parse_ip

if TYPE_CHECKING:
    from collections.abc import Iterator

REDACTED = "(redacted)"
POD, NAMESPACE, NODE, HOST = "pod", "namespace", "node", "host"
DEFAULT = "default"  # a namespace that all know, with pods that they do not
PUBLIC = frozenset({DEFAULT, "kube-system", "kube-public", "kube-flannel", "podwire-system", "localhost", "(none)"})
SECRET = (
    "token",
    "passw",
    "passphrase",
    "secret",
    "credential",
    "auth",
    "private",
    "cert",
    "cookie",
    "apikey",
    "api-key",
    "accesskey",
    "access-key",
    "access_key",
    "psk",
    "pwd",
)
SCHEMES = ("bearer", "basic")  # of HTTP, in front of a secret
# Words in front of a name; what follows them without `=` is one if it does not look like a word of English.
NAMING = {"node": NODE, "peer": NODE, "lease": NODE, "host": HOST, "pod": POD, "namespace": NAMESPACE}
# Words in front of a name in URLs of Kubernetes' API and in its messages, and those in front of its users' names.
COLLECTIONS = {"nodes": NODE, "pods": POD, "namespaces": NAMESPACE, "networkpolicies": POD}
ACCOUNTS = {"system:serviceaccount:": NAMESPACE, "system:node:": NODE}
ENVIRONMENTS = ("env", "envs", "environment")
OTHERS = ("labels", "annotations")  # whatever people have written there
BREAKS = frozenset(" \t\n\r\"'`,;()[]{}<>|\\")
QUOTES = ('"', "'")
LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.")  # of names of Kubernetes (RFC 1123)
LONG = 6  # letters of a name that is replaced within longer words, too
OPAQUE = 32  # letters from which on a word of mixed letters and digits is taken for a secret
BEGIN, END = "-----BEGIN", "-----END"
NOTHING, VALUE, MARK = "nothing", "a secret", "a mark before a secret"  # what is expected of the next word


class Redactor:
    """Names that are known, with their pseudonyms."""

    def __init__(self) -> None:
        self._pseudonyms: dict[str, str] = {}
        self._known: set[str] = set()

    def learn(self, kind: str, name: object) -> None:
        """Notes a name that is to be replaced wherever it stands."""
        if isinstance(name, str) and len(name) > 1 and name not in PUBLIC and not _is_number(name):
            self._pseudonym(kind, name)
            self._known.add(name)

    def learn_pod(self, text: object) -> None:
        """Notes a pod, NAMESPACE/NAME."""
        namespace, _, name = str(text or "").partition("/")
        self.learn(NAMESPACE, namespace)
        self.learn(POD, name)

    def value(self, document: Any) -> Any:
        """Returns a document of JSON without the values whose keys name secrets."""
        if isinstance(document, dict):
            return {key: self._member(str(key), value) for key, value in document.items()}
        if isinstance(document, list | tuple):
            return [self.value(value) for value in document]
        return document

    def _member(self, key: str, value: Any) -> Any:
        lower = key.lower()
        if any(part in lower for part in SECRET) or (lower.endswith("key") and lower != "key"):
            return REDACTED
        if lower.endswith(OTHERS):
            return REDACTED
        if lower in ENVIRONMENTS and isinstance(value, dict):
            return dict.fromkeys(value, REDACTED)
        if lower in ENVIRONMENTS and value:
            return REDACTED
        return self.value(value)

    def text(self, text: str) -> str:
        """Returns any text without what looks like a secret or like a pod, and with pseudonyms for names."""
        text = without_credentials(_without_pem(text))
        self._learn_hosts(text)
        self._learn_named(text)
        return self._named("".join(self._words(text)))

    def _words(self, text: str) -> Iterator[str]:
        """Yields the text in pieces, of which secrets are replaced; one in quotes as a whole."""
        expected, gap, quote = NOTHING, "", ""
        for word in _split(text):
            if word[0] in BREAKS:
                gap, quote = word, "" if quote in word or "\n" in word else quote
                yield "" if quote else word
                continue
            key, mark, value = _parted(word)
            if quote:  # the secret goes on
                continue
            if expected == MARK and mark and not key:
                yield f"{mark}{REDACTED if value else ''}"
                expected = NOTHING if value else VALUE
            elif (expected == VALUE and word[0] != "-") or _is_opaque(word):
                quote = gap[-1] if expected == VALUE and gap.endswith(QUOTES) else ""
                yield REDACTED
                expected = VALUE if _is_scheme(word) else NOTHING
            elif any(part in key.lower() for part in SECRET):
                yield f"{key}{mark}{REDACTED if value else ''}"
                is_flag = word[0] == "-" and not mark
                expected = NOTHING if value else VALUE if mark or is_flag else MARK
            else:
                yield self._pair(word)
                expected = VALUE if _is_scheme(word) else NOTHING

    def _pair(self, word: str) -> str:
        """Returns pseudonyms for a word that may be NAMESPACE/NAME of a pod or a policy."""
        key, mark, value = word.rpartition("=")
        namespace, slash, name = value.rstrip(":.").partition("/")
        tail = value[len(value.rstrip(":.")) :]
        if not (slash and _is_label(namespace) and _is_label(name)) or namespace in PUBLIC - {DEFAULT}:
            return word
        shown = DEFAULT if namespace == DEFAULT else self._pseudonym(NAMESPACE, namespace)
        return f"{key}{mark}{shown}/{self._pseudonym(POD, name)}{tail}"

    def _pseudonym(self, kind: str, name: str) -> str:
        if name not in self._pseudonyms:
            self._pseudonyms[name] = f"{kind}-{len(self._pseudonyms) + 1}"
        return self._pseudonyms[name]

    def _learn_hosts(self, text: str) -> None:
        """Notes the names of hosts in URLs."""
        for part in text.split("://")[1:]:
            end = next((place for place, letter in enumerate(part) if letter in BREAKS or letter in "/?#"), len(part))
            host = part[:end].rpartition("@")[2]
            name = host.partition("]")[0] if host.startswith("[") else host.partition(":")[0]
            self.learn(HOST, name.rstrip("."))

    def _learn_named(self, text: str) -> None:
        """Notes what follows a word that is followed by names, as in a log."""
        before = gap = ""
        for word in _split(text):
            if word[0] in BREAKS:
                gap = word
                continue
            self._learn_word(word)
            kind, name = _kind_of(before), word.rstrip(".:")
            is_quoted = gap.endswith(QUOTES)
            if kind and _is_label(name) and (is_quoted or not name.isalpha()):
                self.learn(kind, name)
            before = before if word == ":" else word  # of JSON

    def _learn_word(self, word: str) -> None:
        """Notes the names that a word has by itself: `node=NAME`, `/pods/NAME`, `system:node:NAME`, `HOST:PORT`."""
        key, mark, value = word.partition("=")
        if mark and "/" not in value and (kind := _kind_of(key)):
            self.learn(kind, value)
        parts = word.partition("?")[0].rstrip(":.").split("/")
        for collection, name in pairwise(parts):
            if collection in COLLECTIONS and _is_label(name):
                self.learn(COLLECTIONS[collection], name)
        for account, kind in ACCOUNTS.items():
            self.learn(kind, word.partition(account)[2].partition(":")[0])
        host, _, port = value.rpartition(":") if mark else word.rstrip(":").rpartition(":")
        if port.isdecimal() and _is_label(host) and host.rpartition(".")[2].isalpha() and "." in host:
            self.learn(HOST, host)

    def _named(self, text: str) -> str:
        """Returns the text with names replaced: a short one where it is a word, a longer one anywhere. It is done in
        one pass, as thousands of nodes may be known; of several names that begin at a place the longest is meant.
        """
        lengths: dict[str, set[int]] = {}  # of longer names by their first letters
        for name in self._known:
            lengths.setdefault(name[:LONG] if len(name) >= LONG else "", set()).add(len(name))
        short = sorted(lengths.pop("", ()), reverse=True)
        longest_first = {head: sorted(sizes, reverse=True) for head, sizes in lengths.items()}
        pieces, start, place = list[str](), 0, 0
        while place < len(text):
            sizes = longest_first.get(text[place : place + LONG], ())
            if short and not text[place - 1 : place].isalnum():
                sizes = (*sizes, *[size for size in short if not text[place + size : place + size + 1].isalnum()])
            name = next((name for size in sizes if (name := text[place : place + size]) in self._known), "")
            if name:
                pieces += [text[start:place], self._pseudonyms[name]]
                start = place + len(name)
            place += len(name) or 1
        return "".join([*pieces, text[start:]])


def _split(text: str) -> list[str]:
    """Returns the words of a text and, as pieces of their own, what parts them."""
    pieces: list[str] = []
    start = 0
    for place in range(1, len(text)):
        if (text[place] in BREAKS) != (text[place - 1] in BREAKS):
            pieces.append(text[start:place])
            start = place
    return [*pieces, text[start:]] if text else []


def _parted(word: str) -> tuple[str, str, str]:
    """Returns key, mark and value of `KEY=VALUE` or `KEY:VALUE`."""
    key, mark, value = word.partition("=")
    return (key, mark, value) if mark else word.partition(":")


def _is_scheme(word: str) -> bool:
    """Returns True for a scheme of HTTP, also behind the escape of a line's end."""
    return word.lower().removeprefix("n") in SCHEMES


def _kind_of(key: str) -> str:
    """Returns the kind of name that a key has: `pod`, `pods`, `podName`, `k8s.pod.name`, `K8S_POD_NAME`."""
    plain = key.lower().removesuffix("name").rstrip("_.-")
    last = plain.replace("_", ".").rpartition(".")[2]
    return COLLECTIONS.get(last) or NAMING.get(last, "")


def _without_pem(text: str) -> str:
    front, *rest = text.split(BEGIN)
    parts = [front]
    for part in rest:
        _, end, behind = part.partition(END)
        parts += [REDACTED, behind.partition("-----")[2] if end else ""]
    return "".join(parts)


def _is_number(name: str) -> bool:
    """Returns True for an address, and for a key of etcd, which is a subnet."""
    try:
        parse_ip(name)
    except ValueError:
        return not set(name.lower()) - set("0123456789abcdef.:-&/") and any(letter in ".:" for letter in name)
    return True


def _is_label(name: str) -> bool:
    return len(name) > 1 and not set(name) - LABEL and not _is_number(name) and not name.replace(".", "").isdecimal()


def _is_opaque(word: str) -> bool:
    """Returns True for what may be a token or a key: long, with small letters, capitals and digits, and no path."""
    longest = max(word.replace("=", "/").split("/"), key=len)
    kinds = (str.islower, str.isupper, str.isdecimal)
    is_mixed = all(any(kind(letter) for letter in longest) for kind in kinds)
    return word.startswith("eyJ") or (is_mixed and len(longest) >= OPAQUE)
