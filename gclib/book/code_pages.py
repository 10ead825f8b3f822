"""A page for each module of gclib: what it holds, and its source with an anchor at each name."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from gclib.book.code_links import Address, link_code
from gclib.book.names import PACKAGE, Module, Names

KINDS = {"class": "class", "function": "function", "method": "method", "data": "constant"}


def pages(names: Names) -> Iterator[tuple[str, str]]:
    """Name and text of the page of each module, and of the list of all."""
    rows = ["| module | what it is for |", "|---|---|"]
    top = [module for module in names.children(PACKAGE) if not module.is_package]
    packages = [module for module in names.children(PACKAGE) if module.is_package]
    groups: list[tuple[str, list[Module]]] = [
        (package.name, [package, *_below(package, names)]) for package in packages
    ]
    groups.append(("gclib itself", [names.modules[PACKAGE], *top]))
    parts = ["# The code\n\nEvery module of `gclib` with its source, but the hidden checks.\n"]
    for title, modules in groups:
        lines = [f"| [`{m.name}`]({m.name}.md) | {_cell(m.summary)} |" for m in modules]
        parts.append(f"\n## {title}\n\n" + "\n".join([*rows, *lines]) + "\n")
    yield "code/index", "".join(parts)
    for module in names.modules.values():
        yield module.page, page_of(module)


def _below(package: Module, names: Names) -> Iterator[Module]:
    for module in names.children(package.name):
        yield module
        if module.is_package:
            yield from _below(module, names)


def _cell(text: str) -> str:
    """A summary as a cell of a table: nothing in it is Markdown but code."""
    parts = re.split(r"(``.+?``)", text)
    escaped = [
        part if number % 2 else re.sub(r"([\\`*_{}\[\]<>$|#])", r"\\\1", part)
        for number, part in enumerate(parts)
    ]
    return "".join(escaped).replace("|", "\\|") if len(parts) > 1 else "".join(escaped)


def page_of(module: Module) -> str:
    """The page of a module; its source comes from the directive ``gclib-source``."""
    return f"---\norphan: true\n---\n# `{module.name}`\n\n```{{gclib-source}} {module.name}\n```\n"


def body_of(module: Module, names: Names, address: Address) -> str:
    """What stands on the page of a module, as HTML.

    Args:
        module: the module.
        names: of gclib.
        address: of a place, as seen from the page.
    """
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    parents = module.name.split(".")[:-1]
    above = [
        f'<a href="{html.escape(address(place))}">{html.escape(parents[count])}</a>'
        for count in range(len(parents))
        if (place := names.find(".".join(parents[: count + 1])))
    ]
    trail = " / ".join(['<a href="index.html">code</a>', *above, module.name.split(".")[-1]])
    parts = [
        f'<p class="trail">{trail}</p>',
        f"<p>{_prose(module.summary)}</p>" if module.summary else "",
        f'<p class="path"><code>{html.escape(module.path)}</code></p>',
    ]
    below = names.children(module.name)
    if below:
        rows = "".join(
            f'<tr><th scope="row"><a href="{one.name}.html">{html.escape(one.name)}</a></th>'
            f"<td>{_prose(one.summary)}</td></tr>"
            for one in below
        )
        parts.append(f'<table class="modules docutils">{rows}</table>')
    shown = [
        one
        for one in module.definitions.values()
        if one.kind in ("class", "function")
        and not one.name.startswith("_")
        and "." not in one.name
    ]
    if shown:
        rows = "".join(
            f'<tr><th scope="row"><a href="#{one.name}"><code>{html.escape(one.name)}</code></a>'
            f"</th><td>{_prose(one.summary)}</td></tr>"
            for one in shown
        )
        parts.append(f'<table class="definitions docutils">{rows}</table>')
    lexer = PythonLexer(stripnl=False, ensurenl=False)
    coloured = highlight(module.source.rstrip("\n"), lexer, HtmlFormatter(nowrap=True))
    linked = link_code(coloured.rstrip("\n"), names, {}, address, own=module.name)
    lines = linked.split("\n")
    anchors: dict[int, list[str]] = {}
    for one in module.definitions.values():
        anchors.setdefault(one.line, []).append(one.name)
    width = len(str(len(lines)))
    made = []
    for number, line in enumerate(lines, start=1):
        text = f'<span class="linenos">{number:>{width}}</span>{line}'
        for name in anchors.get(number, []):
            text = f'<span class="defined" id="{html.escape(name)}">{text}</span>'
        made.append(text)
    parts.append(
        '<div class="highlight-python notranslate source"><div class="highlight"><pre>'
        + "\n".join(made)
        + "\n</pre></div></div>"
    )
    return "\n".join(part for part in parts if part)


def _prose(text: str) -> str:
    return re.sub(r"``(.+?)``", r"<code>\1</code>", html.escape(text))
