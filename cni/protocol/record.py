"""Records: typed, immutable tuples that cost nothing at start.

`typing.NamedTuple` would load typing and collections (about 9 ms of a 20 ms budget), so type checkers see the
original and the interpreter uses this small class: fields from the annotations, defaults from the class body.
Unlike the original, records of different types are never equal.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple as Record
else:
    from _operator import itemgetter

    _new_tuple = tuple.__new__
    GETTERS = [property(itemgetter(position)) for position in range(32)]  # shared by all records

    class _RecordType(type):
        def __new__(mcs, name, bases, body):
            fields = tuple(body.get("__annotations__", ()))
            body["__match_args__"] = body["_fields"] = fields
            body["_defaults"] = defaults = {field: body.pop(field) for field in fields if field in body}
            body["_last"] = tuple(defaults.values())
            body["__slots__"] = ()
            body.update(zip(fields, GETTERS, strict=False))
            return super().__new__(mcs, name, bases, body)

    class Record(tuple, metaclass=_RecordType):
        """A tuple with named fields; `_replace` and `_asdict` as in typing.NamedTuple."""

        def __new__(cls, *values, **named):
            lacking = len(cls._fields) - len(values)
            if named or not 0 <= lacking <= len(cls._last):
                values = cls._completed(values, named)
            elif lacking:
                values += cls._last[-lacking:]
            return _new_tuple(cls, values)

        @classmethod
        def _completed(cls, values, named):
            """Returns the values with those that are named, and defaults for all others."""
            missing = cls._fields[len(values) :]
            rest = cls._defaults | named
            try:
                values += tuple([rest[field] for field in missing])
            except KeyError as absent:
                raise TypeError(f"{cls.__name__} needs {absent}") from None
            if named.keys() - set(missing):
                raise TypeError(f"{cls.__name__} takes {cls._fields}, not {sorted(named)}")
            if len(values) != len(cls._fields):
                raise TypeError(f"{cls.__name__} takes {cls._fields}")
            return values

        def _replace(self, **named):
            return type(self)(**(dict(zip(self._fields, self, strict=True)) | named))

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def __eq__(self, other):
            return type(self) is type(other) and tuple.__eq__(self, other)

        def __ne__(self, other):
            return not self == other

        __hash__ = tuple.__hash__  # without a call of Python: addresses are the keys of large tables

        def __repr__(self):
            inside = ", ".join([f"{field}={value!r}" for field, value in self._asdict().items()])
            return f"{type(self).__name__}({inside})"


__all__ = ["Record"]
