"""The table in cni/README.md of packages and the tree agree."""

from __future__ import annotations

from tests.rules.source import ROOT

README = ROOT / "cni/README.md"


def rooms() -> list[str]:
    """Returns the first column of the table under the heading Packages."""
    rooms: list[str] = []
    inside = False
    for line in README.read_text().splitlines():
        if line.startswith("#"):
            inside = line.lstrip("# ").strip() == "Packages"
        elif inside and line.startswith("|"):
            cell = line.split("|")[1].strip()
            rooms += [cell.strip("`").rstrip("/")] if cell.startswith("`") else []
    return rooms


def test_every_room_of_the_table_exists() -> None:
    listed = rooms()
    assert listed
    assert [path for path in listed if not (ROOT / path).exists()] == []
    assert len(listed) == len(set(listed))


def test_every_room_of_the_tree_is_in_the_table() -> None:
    listed = set(rooms())
    tree = {path for path in (ROOT / "cni").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    tree |= {path for path in ROOT.iterdir() if path.is_dir() and path.name in ("ipam", "conf", "hack", "tests")}
    needed = {path.relative_to(ROOT).as_posix() for path in tree if path.name != "__init__.py"}
    below = {path for path in needed if any(name.startswith(f"{path}/") for name in listed)}
    assert needed - listed - below == set()
