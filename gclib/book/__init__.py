"""The course as a book: a static site that works offline from a folder (``make book``).

Notebooks are executed (:mod:`.outputs`), turned into pages (:mod:`.chapter`) beside the documents
(:mod:`.documents`) and the code (:mod:`.code_pages`); Sphinx with myst-nb and the theme furo makes
the site (:mod:`.extension` is what we add), :mod:`.check` reads it back, and :mod:`.build` puts it
in place of the old one.
"""
