"""Takes pictures and answers of commands: `python -m hack.gallery.main BUNDLE FOLDER README` (hack/pictures)."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from hack.gallery.answers import retaken
from hack.gallery.node import HEALTH_PORT, Node
from hack.gallery.terminal import terminal_svg
from tests.machine import Machine

PAGE = f"http://127.0.0.1:{HEALTH_PORT}/"
SIZE = "1000,470"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-sync", "--hide-scrollbars", f"--window-size={SIZE}",
)  # fmt: skip
SCHEMES = {"dark": 0, "light": 1}  # Chromium's numbers of preferredColorScheme
SECONDS = 300
DOCUMENT = Path(__file__).parents[2] / "cni/diag/README.md"


def take(bundle: Path, folder: Path, readme: Path) -> None:
    """Writes all pictures to a folder, those that a browser takes only where there is one, and DOCUMENT with the
    answers of today to `readme`. Raises MachineError.
    """
    document = DOCUMENT.read_text()
    with Machine() as machine:
        node = Node(machine, bundle)
        node.prepare()
        node.podwire("topology", "--cluster", "--svg", str(folder / "topology.svg"))
        (folder / "ps.svg").write_text(terminal_svg(node.at_terminal("ps")))
        document = retaken(document, "healthy", node.answer)
        browser = os.environ.get("CHROMIUM", "chromium")
        if browser and shutil.which(browser):
            photograph(machine, browser, folder)
        else:
            sys.stderr.write(f"no pictures of the status page: no browser {browser!r} in PATH\n")
        node.damage()
        (folder / "doctor.svg").write_text(terminal_svg(node.at_terminal("doctor")))
        readme.write_text(retaken(document, "damaged", node.answer))


def photograph(machine: Machine, browser: str, folder: Path) -> None:
    """Takes the status page in a browser that has the machine's network alone."""
    for scheme, number in SCHEMES.items():
        with tempfile.TemporaryDirectory() as home:
            target = (f"--screenshot={folder}/status-{scheme}.png", f"--blink-settings=preferredColorScheme={number}")
            command = (browser, *FLAGS, f"--user-data-dir={home}", *target, PAGE)
            machine.run(*command, env={"HOME": home}, seconds=SECONDS)


if __name__ == "__main__":
    os.umask(0o022)
    take(*[Path(argument).absolute() for argument in sys.argv[1:]])
