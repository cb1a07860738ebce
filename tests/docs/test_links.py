"""Every relative link in the documents leads to a file and to a heading that exist."""

import re
from collections import Counter
from posixpath import normpath

import pytest

from tests.docs.documents import ROOT, documents, without_code_blocks

DOCUMENTS = documents()
NAMED_FILES = [
    path
    for pattern in (
        "exporter/**/*.py",
        "deploy/**/*",
        "docs/generate/**/*.py",
        "*.yaml",
        "Makefile",
    )
    for path in ROOT.glob(pattern)
    if path.is_file() and path.suffix in {".py", ".yml", ".yaml", ".txt", ".service", ""}
]


def links(text: str) -> list[str]:
    """Return the relative links and pictures of a document."""
    found = re.findall(
        r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`(?!\]\()", "", without_code_blocks(text))
    )
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.*)$", without_code_blocks(text), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).strip().replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_headings(document):
    folder = document.rpartition("/")[0]
    for target in links(DOCUMENTS[document]):
        path, _, anchor = target.partition("#")
        file = normpath(f"{folder}/{path}") if path else document
        file = file.lstrip("/")
        assert (ROOT / file).exists(), target
        if anchor:
            assert anchor in anchors(DOCUMENTS[file]), target


def test_there_are_links():
    assert sum(len(links(text)) for text in DOCUMENTS.values()) > 80


def test_documents_named_in_code_and_configuration_exist():
    missing = [
        (path.relative_to(ROOT).as_posix(), name, anchor)
        for path in NAMED_FILES
        for name, anchor in re.findall(
            r"(?<![\w/])(docs/[\w-]+\.md)(?:#([\w-]+))?", path.read_text("utf-8")
        )
        if name not in DOCUMENTS or (anchor and anchor not in anchors(DOCUMENTS[name]))
    ]
    assert missing == []


def test_the_index_names_every_document():
    listed = {
        normpath(f"docs/{target.partition('#')[0]}")
        for target in links(DOCUMENTS["docs/README.md"])
    }
    assert {name for name in DOCUMENTS if name.startswith("docs/")} - listed == {"docs/README.md"}
