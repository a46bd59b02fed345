"""Stands in for the package `encodings` while the interpreter starts, and becomes it when another codec is asked for.

The interpreter wants one codec, for its streams. The real package costs 0.5 ms, most of it for a table of aliases.
"""

import codecs


class IncrementalEncoder(codecs.IncrementalEncoder):
    def encode(self, text: str, final: bool = False) -> bytes:  # noqa: ARG002
        return codecs.utf_8_encode(text, self.errors)[0]


class IncrementalDecoder(codecs.BufferedIncrementalDecoder):
    _buffer_decode = codecs.utf_8_decode  # type: ignore[assignment]  # all four as in encodings.utf_8


class StreamWriter(codecs.StreamWriter):
    encode = codecs.utf_8_encode  # type: ignore[assignment]


class StreamReader(codecs.StreamReader):
    decode = codecs.utf_8_decode  # type: ignore[assignment]


UTF8 = codecs.CodecInfo(
    name="utf-8",
    encode=codecs.utf_8_encode,
    decode=lambda data, errors="strict": codecs.utf_8_decode(data, errors, True),
    incrementalencoder=IncrementalEncoder,
    incrementaldecoder=IncrementalDecoder,
    streamreader=StreamReader,
    streamwriter=StreamWriter,
)


def find(name: str) -> codecs.CodecInfo | None:
    if name in {"utf_8", "utf-8"}:
        return UTF8
    become_encodings()
    codec: codecs.CodecInfo | None = globals()["search_function"](name)
    return codec


def become_encodings() -> None:
    """Runs the real package's code in this module."""
    from start import Code  # type: ignore[import-not-found]  # in the bundle it is a module of its own

    place = Code.find("encodings")
    globals().pop("__getattr__", None)  # that code imports from this package, which asks here for what it lacks yet
    exec(Code.of(place), globals())  # noqa: S102
    codecs.unregister(find)  # only now: another thread may ask meanwhile


def __getattr__(name: str) -> object:
    become_encodings()
    if name in globals():
        return globals()[name]
    raise AttributeError(name)


codecs.register(find)
