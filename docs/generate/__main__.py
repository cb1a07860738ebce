"""Writes the generated documents."""

from docs.generate.documents import render_documents

for path, text in render_documents().items():
    path.write_text(text, encoding="utf-8")
