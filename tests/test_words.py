"""The project's words: none that a reader has to look up."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve()
PLACES = ("hybrid_sweep", "trainables", "search_spaces", "benchmarks", "tests", "docs", "docker")
FROZEN = "idx.py"
"""Its digest is in the manifests of folders, which could not be resumed after a change: the word stays."""
AVOIDED = re.compile(r"(?<![a-z])(anew|whoever|nobody|somebody|mend|begun|sitting|crew)(?![a-z])", re.I)


@pytest.mark.parametrize("place", [*PLACES, "."])
def test_no_word_that_has_to_be_looked_up(place):
    root = HERE.parents[1] / place
    kinds = ("md",) if place == "." else ("py", "md", "yaml", "j2", "js")
    files = [file for kind in kinds for file in root.glob(f"*.{kind}" if place == "." else f"**/*.{kind}")]
    assert files or place == "docs"
    found = [
        f"{file.relative_to(root)}:{number}: {line.strip()}"
        for file in files
        if file != HERE and file.name != FROZEN
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if AVOIDED.search(line)
    ]
    assert not found
