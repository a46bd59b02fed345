"""The table in cni/README.md of packages and the tree agree."""

from __future__ import annotations

from tests.rules.source import ROOT

README = ROOT / "cni/README.md"


def packages() -> list[str]:
    """Returns the first column of the table under the heading Packages."""
    found: list[str] = []
    inside = False
    for line in README.read_text().splitlines():
        if line.startswith("#"):
            inside = line.lstrip("# ").strip() == "Packages"
        elif inside and line.startswith("|"):
            cell = line.split("|")[1].strip()
            found += [cell.strip("`").rstrip("/")] if cell.startswith("`") else []
    return found


def test_every_package_of_the_table_exists() -> None:
    listed = packages()
    assert listed
    assert [path for path in listed if not (ROOT / path).exists()] == []
    assert len(listed) == len(set(listed))


def test_every_package_of_the_tree_is_in_the_table() -> None:
    listed = set(packages())
    tree = {path for path in (ROOT / "cni").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    tree |= {path for path in ROOT.iterdir() if path.is_dir() and path.name in ("ipam", "conf", "hack", "tests")}
    needed = {path.relative_to(ROOT).as_posix() for path in tree if path.name != "__init__.py"}
    below = {path for path in needed if any(name.startswith(f"{path}/") for name in listed)}
    assert needed - listed - below == set()
