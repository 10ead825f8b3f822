"""What the book adds to Sphinx: folded solutions, MathML, links to the code, readable tables."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from gclib.book.code_links import link_code, places_in
from gclib.book.code_pages import body_of
from gclib.book.names import Names, Place, hidden, names_of

logger = logging.getLogger(__name__)
CODE_BLOCK = re.compile(
    r'(<div class="highlight-i?python3? notranslate"><div class="highlight"><pre>)(.*?)(</pre>)',
    re.DOTALL,
)


# Folded solutions


class folded(nodes.General, nodes.Element):  # noqa: N801 (docutils names nodes like this)
    """A part that the reader opens."""


class Solution(SphinxDirective):
    """``{solution} TITLE``: its content, folded."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Make the node."""
        node = folded(title=self.arguments[0])
        self.state.nested_parse(self.content, self.content_offset, node)
        return [node]


def _visit_folded(translator: Any, node: folded) -> None:
    title = html.escape(node["title"])
    translator.body.append(f'<details class="solution"><summary>{title}</summary>\n')


def _depart_folded(translator: Any, node: folded) -> None:
    translator.body.append("</details>\n")


# Formulas


def _formula(translator: Any, node: nodes.Element, display: bool) -> None:
    from gclib.grading.pages.markup import formula

    made = formula(node.astext(), display)
    if "<math" not in made:
        logger.warning("no formula: %s", node.astext(), location=node)
    translator.body.append(made)
    raise nodes.SkipNode


def _visit_math(translator: Any, node: nodes.Element) -> None:
    _formula(translator, node, False)


def _visit_displaymath(translator: Any, node: nodes.Element) -> None:
    _formula(translator, node, True)


# Code


class Source(SphinxDirective):
    """``{gclib-source} MODULE``: what a module holds, and its source."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the page's HTML, and name what it defines for the search."""
        names: Names = names_of(Path(self.config.gclib_root))
        module = names.modules[self.arguments[0]]
        domain = self.env.get_domain("py")
        domain.note_module(module.name, f"module-{module.name}", module.summary, "", False)
        anchor = nodes.target(ids=[f"module-{module.name}"])
        for one in module.definitions.values():
            if not one.name.rpartition(".")[2].startswith("_"):
                domain.note_object(f"{module.name}.{one.name}", one.kind, one.name, location=anchor)
        page = nodes.raw("", body_of(module, names, _beside), format="html")
        # Not among the words of the search: each is in some module, and names are found anyway.
        return [anchor, nodes.container("", page, classes=["no-search", "code-page"])]


def _beside(place: Place) -> str:
    """Address of a place as seen from another page of code."""
    return f"{place.module}.html{f'#{place.anchor}' if place.anchor else ''}"


def place_of(text: str, names: Names) -> Place | None:
    """Where inline code leads, if it is a path or a name of gclib.

    Raises:
        LookupError: it looks like one, and is not there.
    """
    if not re.match(r"gclib[./]\w", text) or hidden(text) or "NN" in text:
        return None
    if re.fullmatch(r"gclib(?:/\w+)+(?:\.py|/)?", text):
        place = names.path(text)
        if place is None and not (names.root / text).exists():
            raise LookupError(f"{text} is not there")
        return place
    found = re.fullmatch(r"(gclib(?:\.\w+)+)(?:\(.*\))?", text)
    if found is None:
        return None
    place = names.find(found[1])
    if place is None:
        raise LookupError(f"gclib has no {found[1]}")
    return place


def _link_prose(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Turn inline code that names a part of gclib into a link to it."""
    if page.startswith("code/gclib"):
        return
    for literal in list(doctree.findall(nodes.literal)):
        if isinstance(literal.parent, nodes.reference | nodes.title):
            continue
        try:
            place = place_of(literal.astext(), names_of(Path(app.config.gclib_root)))
        except LookupError as error:
            logger.warning("%s", error, location=literal)
            continue
        if place is not None:
            uri = app.builder.get_relative_uri(page, place.page)
            uri += f"#{place.anchor}" if place.anchor else ""
            link = nodes.reference("", "", internal=True, refuri=uri, classes=["code-link"])
            literal.replace_self(link)
            link += literal


def _note_uses(app: Sphinx, doctree: nodes.document) -> None:
    """Remember which sections of the chapters use which module."""
    page = app.env.docname
    if not page.startswith("chapters/"):
        return
    names: Names = names_of(Path(app.config.gclib_root))
    scope: dict[str, str] = {}
    for node in doctree.findall(lambda one: isinstance(one, nodes.literal_block | nodes.literal)):
        if isinstance(node, nodes.literal):
            try:
                place = place_of(node.astext(), names)
            except LookupError:
                continue
            places = [place] if place else []
        else:
            places = [place for _, _, place in places_in(node.astext(), names, scope)]
        section = node.parent
        while section is not None and not isinstance(section, nodes.section):
            section = section.parent
        if section is None:
            continue
        for place in places:
            uses = app.env.gclib_uses.setdefault(place.module, {})
            uses.setdefault((page, section["ids"][0]), section.next_node(nodes.title).astext())


def _page(app: Sphinx, page: str, template: str, context: dict, doctree: Any) -> None:
    """Links in code cells; on pages of code, where the chapters use it."""
    if "body" not in context:
        return
    names: Names = names_of(Path(app.config.gclib_root))

    def address(place: Place) -> str:
        uri = app.builder.get_relative_uri(page, place.page)
        return f"{uri}#{place.anchor}" if place.anchor else uri

    if page.startswith("code/gclib"):
        context["body"] = context["body"].replace(
            '<div class="highlight-python notranslate source">',
            _used(app, page) + '<div class="highlight-python notranslate source">',
            1,
        )
        return
    scope: dict[str, str] = {}
    context["body"] = CODE_BLOCK.sub(
        lambda found: found[1] + link_code(found[2], names, scope, address) + found[3],
        context["body"],
    )


def _used(app: Sphinx, page: str) -> str:
    uses = app.env.gclib_uses.get(page.removeprefix("code/"), {})
    if not uses:
        return ""
    chapters: dict[str, list[str]] = {}
    for (where, anchor), title in uses.items():
        uri = app.builder.get_relative_uri(page, where)
        link = f'<a href="{uri}#{anchor}">{html.escape(title)}</a>'
        chapters.setdefault(where, []).append(link)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(where.split("/")[1].split("_")[0])}</th>'
        f"<td>{' · '.join(links)}</td></tr>"
        for where, links in sorted(chapters.items())
    )
    return (
        '<details class="uses"><summary>Where the chapters use it</summary>'
        f'<table class="docutils">{rows}</table></details>'
    )


# Tables


def _tables(app: Sphinx, doctree: nodes.document) -> None:
    """A table without names of columns has none; a corner without a name heads names of rows."""
    for table in doctree.findall(nodes.table):
        for head in list(table.findall(nodes.thead)):
            cells = [cell.astext().strip() for cell in head.findall(nodes.entry)]
            group = head.parent
            if not any(cells):
                group.remove(head)
            if cells and not cells[0]:
                first = next(iter(group.findall(nodes.colspec)))
                first["stub"] = 1


def _start(app: Sphinx) -> None:
    app.env.gclib_uses = {}


def setup(app: Sphinx) -> dict:
    """Connect everything; called by Sphinx."""
    app.add_config_value("gclib_root", "", "", [str])
    app.add_node(folded, html=(_visit_folded, _depart_folded))
    app.add_directive("solution", Solution)
    app.add_directive("gclib-source", Source)
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_displaymath, None))
    app.connect("builder-inited", _start)
    app.connect("doctree-read", _tables)
    app.connect("doctree-read", _note_uses)
    app.connect("doctree-resolved", _link_prose)
    app.connect("html-page-context", _page, priority=900)
    app.add_css_file("book.css")
    app.add_js_file("book.js")
    return {"parallel_read_safe": False, "parallel_write_safe": True}


def settings(root: Path, version: str) -> dict:
    """Sphinx' settings of the book, for a ``conf.py``."""
    return {
        "project": "GCNet, built piece by piece",
        "html_title": "GCNet, built piece by piece",
        "html_short_title": "GCNet",
        "version": version,
        "release": version,
        "language": "en",
        "extensions": ["myst_nb", "sphinx_copybutton", "gclib.book.extension"],
        "gclib_root": str(root),
        "nb_execution_mode": "off",
        "nb_merge_streams": True,
        "myst_enable_extensions": ["dollarmath", "amsmath"],
        "myst_heading_anchors": 3,
        "myst_update_mathjax": False,
        "html_math_renderer": "mathml",
        "html_theme": "furo",
        "html_static_path": [str(Path(__file__).with_name("static"))],
        "templates_path": [str(Path(__file__).with_name("templates"))],
        "html_copy_source": False,
        "html_show_sourcelink": False,
        "html_show_copyright": False,
        # A summary would be fetched, which browsers refuse for files on disk.
        "html_show_search_summary": False,
        "html_use_index": False,
        "html_domain_indices": False,
        "pygments_style": "a11y-high-contrast-light",
        "pygments_dark_style": "a11y-high-contrast-dark",
        "html_theme_options": {
            "light_css_variables": {
                "color-brand-primary": "#00598c",
                "color-brand-content": "#00598c",
                "color-brand-visited": "#5b3f8c",
            },
            "dark_css_variables": {
                "color-brand-primary": "#7cc4f0",
                "color-brand-content": "#7cc4f0",
                "color-brand-visited": "#c3a6f0",
            },
        },
        "copybutton_exclude": ".linenos, .gp, .go",
        "suppress_warnings": ["config.cache"],
    }
