"""The documents of the project, without their code blocks, and the code blocks themselves."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
FENCE: Final = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """A code block: the document, the line on which it begins, its language and its text."""

    document: str
    line: int
    language: str
    text: str


def documents() -> dict[str, str]:
    """Return the text of every Markdown document by its path in the repository."""
    folders = (ROOT.glob("*.md"), *((ROOT / each).rglob("*.md") for each in ("docs", "deploy")))
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for found in folders
        for path in sorted(found)
    }


def without_code_blocks(text: str) -> str:
    """Return a document without its code blocks, which have no links and no headings."""
    return FENCE.sub("", text)


def code_blocks() -> Iterator[CodeBlock]:
    """Yield the code blocks of all documents, without their indentation."""
    for document, text in documents().items():
        for found in FENCE.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            code = re.sub(f"^{found[1]}", "", found[3], flags=re.MULTILINE)
            yield CodeBlock(document, line, found[2], code)
