"""Markdown, formulas, code and what was printed, as HTML for pages without scripts."""

from __future__ import annotations

import contextlib
import html
import re
from functools import cache
from pathlib import Path

LONGEST_FORMULA = 2000  # characters; longer ones could be nested deeper than math-core's stack


@cache
def template(name: str):
    """A Jinja template of this folder; what it is given is escaped unless marked as safe."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = style()
    return environment.get_template(name)


@cache
def style() -> str:
    """The style sheet of all pages."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


@cache
def _converter():
    try:
        from math_core import LatexToMathML
    except ImportError:  # extra [grade] is not installed: the source is readable, too
        return None
    return LatexToMathML(fancy_error=False)


@cache
def formula(source: str, display: bool) -> str:
    """A formula as MathML, or its source where it is not one.

    math-core knows commands for formulas alone: none links, loads, or styles the page.
    """
    converter = _converter()
    made = ""
    if converter is not None and len(source) <= LONGEST_FORMULA:
        from math_core import LatexError

        with contextlib.suppress(LatexError):
            made = converter.convert_with_local_state(source.strip(), displaystyle=display)
    made = made or f"<code>{html.escape(source.strip())}</code>"
    return f'<div class="formula">{made}</div>' if display else made


def markdown(source: str, *, pictures: dict | None = None, trusted: bool = False) -> str:
    """Markdown as HTML.

    Args:
        source: the text.
        pictures: attachments of the cell.
        trusted: let HTML and links in it through: text of the course.
    """
    renderer = _renderer()(escape=not trusted, attachments=pictures or {})
    renderer.trusted = trusted
    from nbconvert.filters.markdown_mistune import MarkdownWithMath

    return MarkdownWithMath(renderer=renderer).render(source)


@cache
def _renderer() -> type:
    from nbconvert.filters.markdown_mistune import IPythonRenderer

    class Renderer(IPythonRenderer):
        trusted = False

        def inline_math(self, body):
            return formula(body, False)

        def block_math(self, body):
            return formula(body, True)

        def latex_environment(self, name, body):
            return formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", True)

        def block_code(self, code, info=None):
            return highlight(code) if (info or "").strip() == "python" else printed(code)

        def heading(self, text, level, **attrs):
            return f"<p><strong>{text}</strong></p>\n"  # the page has headings of its own

        def link(self, text, url, title=None):
            if not self.trusted or not url.startswith(("http://", "https://")):
                return text if text == url else f"{text} ({html.escape(url)})"
            return super().link(text, url, title)

        def image(self, text, url, title=None):
            inside = url.startswith("attachment:") and url[11:] in self.attachments
            return super().image(text, url, title) if inside else f"({text})"

    return Renderer


def highlight(source: str) -> str:
    """Python code with colours, in ``<pre>``."""
    from pygments import highlight as coloured
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    lines = coloured(source.rstrip(), PythonLexer(stripnl=False), HtmlFormatter(nowrap=True))
    return f'<pre class="code" tabindex="0"><code>{lines}</code></pre>'


def printed(text: str) -> str:
    """Text as a terminal shows it, without colours, in ``<pre>``."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    return f'<pre tabindex="0">{html.escape(plain.rstrip())}</pre>'
