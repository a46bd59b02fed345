"""The bundle's stand-in for the package `encodings`: it knows UTF-8, and becomes the package for any other codec."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STAND_IN = Path(__file__).parents[2] / "hack/bundle/utf8.py"

# An interpreter in which the stand-in is the package, as in the bundle; it reads the real one's code from its file.
AS_IN_THE_BUNDLE = """
import codecs, encodings, os, sys
real = encodings.__file__
codecs.unregister(encodings.search_function)
for name in [name for name in sys.modules if name.partition(".")[0] == "encodings"]:
    del sys.modules[name]
package, start = type(sys)("encodings"), type(sys)("start")
package.__path__ = [os.path.dirname(real)]
class Code:
    find = staticmethod(lambda name: real)
    of = staticmethod(lambda place: compile(open(place, "rb").read(), place, "exec"))
start.Code = Code
sys.modules.update(encodings=package, start=start)
exec(compile(open(sys.argv[1], "rb").read(), sys.argv[1], "exec"), vars(package))
"""


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ('"a.b".encode("idna")', b"a.b"),
        ('"\\xe9".encode("latin-1") + "\\xe9".encode()', b"\xe9\xc3\xa9"),
        ('__import__("encodings").normalize_encoding("a b").encode()', b"a_b"),
        ('repr(hasattr(__import__("encodings"), "nothing")).encode()', b"False"),
        ('repr(codecs.lookup("utf-8").name).encode()', b"'utf-8'"),
    ],
)
def test_codecs_beside_utf8_come_from_the_package(asked: str, answer: bytes) -> None:
    script = f"{AS_IN_THE_BUNDLE}\nsys.stdout.buffer.write({asked})"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script, STAND_IN], capture_output=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (answer, b"", 0)
