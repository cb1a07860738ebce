"""Write the documents anew; whatever else stands in the README stays."""

from docs.generate.all import written

for path, text in written().items():
    path.write_text(text, encoding="utf-8")
