"""The first module of the bundle: imports without a search, restores the environment, and ends the process fast.

Setting up PyInstaller's importer at each start would cost more than an ADD does; this one has its table ready. What
breaks with a new PyInstaller or CPython is in podwire.spec.
"""

from __future__ import annotations

import gc
import posix
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader, PathFinder
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import Any, TypeAlias

    Place: TypeAlias = tuple[bool, bool, int, int]  # is it a package, is its code deflated, where, how long is that
    Index: TypeAlias = dict[str, Place]

HOME: str = vars(sys)["_MEIPASS"]


IMPORTED = 50_000  # new objects until garbage is looked for: modules make as many, which stay


class Code:
    """The file podwire.code, which podwire.spec writes: marshalled objects, found by offset and size. The first two
    numbers are those of the header; the launcher compares the build, which comes after them.

    The file stays open, so that running processes keep their own modules in an upgrade.
    """

    fd = -1
    hot: Index  # what a plugin may import
    extensions: dict[str, str]  # C modules: path in the bundle
    attachment: tuple[int, int]  # what every verb but VERSION imports
    rest_index: tuple[int, int]
    rest: Index | None = None  # what anything else may import

    @classmethod
    def open(cls) -> None:
        cls.fd = posix.open(f"{HOME}/podwire.code", posix.O_RDONLY)
        head = posix.pread(cls.fd, 8, 0)
        header = int.from_bytes(head[:4], "little"), int.from_bytes(head[4:], "little")
        cls.hot, cls.extensions, cls.attachment, cls.rest_index = cls.read(*header)

    @classmethod
    def close(cls) -> None:
        posix.close(cls.fd)
        cls.fd = -1

    @classmethod
    def read(cls, offset: int, size: int) -> Any:
        return loads(posix.pread(cls.fd, size, offset))  # noqa: S302  # the bundle's own

    @classmethod
    def find(cls, name: str) -> Place | None:
        """Returns the place of a module in the rest, whose index has a thousand names: it is read at the first use."""
        if cls.rest is None:
            gc.set_threshold(IMPORTED)
            gc.enable()
            cls.rest = cls.read(*cls.rest_index)
        return (cls.rest or {}).get(name)

    @classmethod
    def of(cls, place: Place) -> CodeType:
        _, is_deflated, offset, size = place
        marshalled = posix.pread(cls.fd, size, offset)
        if is_deflated:
            from zlib import decompress  # only here: no call of a runtime comes to it

            marshalled = decompress(marshalled)
        code: CodeType = loads(marshalled)  # noqa: S302  # the bundle's own
        return code


# Every import of a module asks its specification whether it is still being loaded, and one without a specification
# costs the making of an AttributeError (CPython's import.c, import_ensure_initialized): 4,000 instructions.
LOADED = ModuleSpec("podwire", None)


def preload() -> None:
    """Runs the modules of an attachment in the order in which they import each other.

    They lie together, so this is one read, and the interpreter's import system, which takes 1 ms for the lot, is not
    asked for any of them.
    """
    for name, is_package, code in Code.read(*Code.attachment):
        module = type(sys)(name)
        parent, _, last = name.rpartition(".")
        module.__package__ = name if is_package else parent
        module.__spec__ = LOADED
        vars(module)["__modules__"] = sys.modules  # of which its code takes what it imports: see podwire.spec
        if is_package:
            module.__path__ = []
        sys.modules[name] = module
        if parent:
            setattr(sys.modules[parent], last, module)
        exec(code, vars(module))  # noqa: S102  # as an import does


class Loader:
    """A loader of modules in podwire.code; the ModuleSpec has the place."""

    @staticmethod
    def create_module(_spec: ModuleSpec) -> None:
        """Returns None: the import system then creates an ordinary module."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None
        exec(Code.of(spec.loader_state), vars(module))  # noqa: S102  # what a loader is for


def specification(name: str, place: Place) -> ModuleSpec:
    is_package, *_ = place
    # Duck typing: importlib.abc.Loader would have to be imported.
    return ModuleSpec(name, Loader, loader_state=place, is_package=is_package)  # type: ignore[arg-type]


class Hot:
    """The first finder: podwire's modules, and all C extensions."""

    @staticmethod
    def find_spec(
        name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in Code.hot:
            return specification(name, Code.hot[name])
        if name in Code.extensions:
            path = f"{HOME}/{Code.extensions[name]}"
            return ModuleSpec(name, ExtensionFileLoader(name, path), origin=path)
        return None


class Rest:
    """The last finder, after the interpreter's own two: all other modules."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if place := Code.find(name):
            return specification(name, place)
        return PathFinder.find_spec(name, path, target)


def occupy_closed_streams() -> None:
    """Opens /dev/null for closed standard streams, so that no lease file becomes descriptor 0, 1 or 2.

    Each is opened for the opposite direction: reading and writing fail as before.
    """
    for stream, flags in (sys.stdin, posix.O_WRONLY), (sys.stdout, posix.O_RDONLY), (sys.stderr, posix.O_RDONLY):
        if stream is None:
            posix.open("/dev/null", flags)


def restore_environment() -> None:
    """Removes the bootloader's variables, so that executed programs inherit what podwire was given.

    posix.environ is what os.environ is later made from. The dynamic loader read LD_LIBRARY_PATH at the start, so
    podwire's own libraries are found all the same.
    """
    environ = posix.environ
    for name in [name for name in environ if name.startswith(b"_PYI_") or name == b"LD_LIBRARY_PATH_ORIG"]:
        del environ[name]
        posix.unsetenv(name)
    ours, _, given = environ.get(b"LD_LIBRARY_PATH", b"").partition(b":")
    if ours == HOME.encode(errors="surrogateescape"):
        if given:
            environ[b"LD_LIBRARY_PATH"] = given
            posix.putenv(b"LD_LIBRARY_PATH", given)
        else:
            del environ[b"LD_LIBRARY_PATH"]
            posix.unsetenv(b"LD_LIBRARY_PATH")


def leave(status: int) -> None:
    """Ends the process; with _exit if no module was imported that may have to clean up, as Py_Finalize costs 1.3 ms."""
    for stream in sys.stdout, sys.stderr:
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            status = status or 1
    if Code.rest is None:
        posix._exit(status)  # noqa: SLF001  # its public name
    sys.exit(status)


def give_up(error: MemoryError | OSError) -> None:
    """Writes the error object of an error that comes before podwire's own code."""
    reason = error.strerror if isinstance(error, OSError) else "there is not enough memory"
    posix.write(1, b'{"cniVersion":"1.1.0","code":100,"msg":"podwire cannot be loaded: %s"}\n' % f"{reason}".encode())
    posix._exit(1)  # noqa: SLF001  # its public name


gc.disable()  # a plugin ends before it has garbage; looking for it costs an ADD 1 ms
if None in (sys.stdin, sys.stdout, sys.stderr):
    occupy_closed_streams()
restore_environment()
Code.open()
sys.meta_path.insert(0, Hot)
sys.meta_path[sys.meta_path.index(PathFinder)] = Rest
