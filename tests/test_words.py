"""How names and numbers are put into tables."""

from __future__ import annotations

from multistep.report.words import below_one_folder


def test_paths_are_told_by_where_they_differ() -> None:
    """A narrow table cut all of them at the same folder."""
    assert below_one_folder(["/a/b/x/1.png", "/a/b/y/2.png"]) == ("/a/b", ["x/1.png", "y/2.png"])
    assert below_one_folder(["/a/b/1.png"]) == ("/a/b", ["1.png"])
    for names in (["a/1.png", "/b/2.png"], ["/a/1.png", "/b/2.png"], ["good", "bad"], []):
        assert below_one_folder(names) == ("", names)
