r"""A student's notebook made harmless, before the browser of somebody else shows it.

nbgrader's formgrader and its feedback pages run what a notebook holds: HTML of Markdown and raw
cells, scripts and HTML of outputs, and TeX that MathJax finds anywhere on the page. Whoever grades
there is logged in, so one ``<img onerror=...>`` may write grades. :func:`make_harmless` works on
the notebook itself, so that formgrader, JupyterLab, plain ``nbgrader generate_feedback`` and the
pages of ``gclib feedback`` all show the same harmless one. What was handed in stays as it is.

**Markdown** is not sanitised as HTML. bleach cleans one parse of one text; here mistune, marked and
MathJax read the source, each in its own way, and MathJax reads the finished page once more. So
nothing is parsed: a *space* is put wherever a construct needs two characters side by side.

=======================  =================  ================================================
a student writes         shown              because
=======================  =================  ================================================
``a<b``, ``<script>``    ``a< b``           a tag, or an address, is ``<`` and one of
                                            a letter, ``/``, ``!``, ``?``
``[text](address)``      ``[text] (...)``   there is no link and no picture without ``](``
                                            or, defined elsewhere, ``]:``
``http://x``             ``http: //x``      a bare address becomes a link
``&#106;avascript``      ``javascript``     entities are decoded first; whatever looks like
                                            one after that gets a space as well
``\href{..}``, ``\def``  ``\ href{..}``     what formulas need is listed; every other
                                            command of TeX is shown as text
``# title``              ``# · title``      nbgrader makes the title an id, and finds the
                                            fields for points by their ids
=======================  =================  ================================================

Nothing joins them again: no Markdown deletes a space inside of a line, and a browser takes ``< b``
for text. Formulas mean what they meant, since TeX ignores spaces, and code stays readable. Doing it
twice changes nothing. Pictures are shown if they are in the notebook; one from the network would
tell its owner who looked, and when.

**Outputs** go the other way: what is inert (text, errors, PNG and JPEG that are what they say) is
kept, all else is dropped. The one HTML that stays is a card of the checks, and not because it
stands in a check's cell: it must be made of the very tags that :mod:`gclib.checks.cards` writes.
**Metadata** can hide cells, choose programs and break out of attributes: it is thrown away and
written anew from the released chapter.
"""

from __future__ import annotations

import base64
import binascii
import copy
import html
import io
import re
import unicodedata
import warnings
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from gclib.checks.cells import source_of
from gclib.grading.notebooks import grade_metadata

LONGEST_MARKDOWN = 20_000  # characters; mistune and MathJax take more than linear time
LONGEST_PROSE = 200_000  # of all Markdown
LONGEST_CODE = 100_000
LONGEST_OUTPUT, MOST_LINES = 20_000, 300  # of one output
LONGEST_OUTPUTS = 500_000  # characters of all of them
LARGEST_PICTURE, LARGEST_PICTURES = 2_000_000, 8_000_000  # bytes, of one and of all
MOST_PIXELS = 25_000_000
MOST_CELLS = 1000
DEEPEST = 40  # braces in braces; MathJax calls itself for each

_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def make_harmless(notebook: dict, released: list[dict]) -> None:
    """Take out of a notebook what could act in a browser; the rest stays readable.

    Call it after the points are counted and before a rubric is added: whatever is in the notebook
    counts as the student's, except cells that are the chapter's own to the letter.

    Args:
        notebook: of nbformat 4, as plain dictionaries; changed in place.
        released: the cells of the chapter, as students received it.
    """
    chapter = _Chapter(released)
    cells = [cell for cell in notebook.get("cells") or [] if isinstance(cell, dict)]
    kept = []
    for number, cell in enumerate(cells):
        made = chapter.cell(cell)
        if number < MOST_CELLS or "nbgrader" in made["metadata"]:
            kept.append(made)
    if len(kept) < len(cells):
        text = f"{len(cells) - len(kept)} of {len(cells)} cells left out"
        kept.append(chapter.cell({"cell_type": "markdown", "source": text}))
    notebook.clear()
    notebook.update(cells=kept, metadata=copy.deepcopy(_METADATA), nbformat=4, nbformat_minor=5)


@dataclass
class _Chapter:
    """What was released, and how much room one notebook has left."""

    released: list[dict]
    characters: int = LONGEST_OUTPUTS
    prose: int = LONGEST_PROSE
    bytes: int = LARGEST_PICTURES
    ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.graded = {grade_metadata(cell).get("grade_id"): cell for cell in self.released}
        self.graded.pop(None, None)
        self.own = {(cell["cell_type"], source_of(cell).strip()): cell for cell in self.released}

    def cell(self, cell: dict) -> dict[str, Any]:
        """The harmless one."""
        source = visible(_text(cell.get("source")))
        metadata = cell.get("metadata")
        grading = self._grading(metadata.get("nbgrader") if isinstance(metadata, dict) else None)
        own = self.own.get((cell.get("cell_type"), source.strip()))
        made: dict[str, Any] = {"id": self._id(cell.get("id")), "metadata": {}}
        if cell.get("cell_type") == "code":
            count = cell.get("execution_count")
            checked = bool(grading) and not grading["solution"] and grading["locked"]
            made["cell_type"] = "code"
            made["execution_count"] = count if type(count) is int else None
            made["source"] = _cut(source, LONGEST_CODE, "# {} characters left out")
            made["outputs"] = self._outputs(cell.get("outputs"), checked)
        elif cell.get("cell_type") == "markdown":
            made["cell_type"] = "markdown"
            made["source"] = source
            if own is None:
                names, pictures = self._pictures(cell.get("attachments"), source)
                made["source"] = self._markdown(source, names)
                if pictures:
                    made["attachments"] = pictures
        else:  # a raw cell is HTML for nbconvert, and unknown ones stop it
            made["cell_type"] = "markdown"
            text = self._markdown(source, {}).replace("~~~", "~ ~ ~")
            made["source"] = f"~~~~~~\n{text}\n~~~~~~"
        own = own or self.graded.get(grading.get("grade_id"))
        if own:
            made["metadata"] = copy.deepcopy(own.get("metadata", {}))
            made["metadata"].pop("nbgrader", None)
        if grading:
            made["metadata"]["nbgrader"] = grading
        return made

    def _markdown(self, source: str, names: dict[str, str]) -> str:
        text = markdown(source, names)
        self.prose -= len(text)
        return text if self.prose >= 0 else f"({len(text):,} characters left out)"

    def _grading(self, found: object) -> dict[str, Any]:
        """The nbgrader metadata of a graded cell: the chapter's, with the checksum of this one."""
        name = found.get("grade_id") if isinstance(found, dict) else None
        if not isinstance(name, str) or name not in self.graded or f"grade {name}" in self.ids:
            return {}
        self.ids.add(f"grade {name}")
        kept = copy.deepcopy(grade_metadata(self.graded[name]))
        if re.fullmatch("[0-9a-f]{32}", str(found.get("checksum"))):
            kept["checksum"] = found["checksum"]
        if found.get("cell_type") in ("code", "markdown"):
            kept["cell_type"] = found["cell_type"]
        return kept

    def _id(self, found: object) -> str:
        if not isinstance(found, str) or not re.fullmatch(r"[\w-]{1,64}", found, re.ASCII):
            found = "cell"
        name, number = found, 1
        while name in self.ids:
            number += 1
            name = f"{found[:50]}-{number}"
        self.ids.add(name)
        return name

    def _outputs(self, outputs: object, checked: bool) -> list[dict[str, Any]]:
        kept = []
        for output in outputs if isinstance(outputs, list) else []:
            made = self._output(output, checked) if isinstance(output, dict) else None
            if made is None:
                continue
            if not checked:  # cards are short, and must not get lost behind what students print
                self.characters -= len(str(made.get("text") or made.get("data", {})))
                if self.characters < 0:
                    left = {"output_type": "stream", "name": "stdout", "text": _LEFT_OUT}
                    return [*kept, left]
            kept.append(made)
        return kept

    def _output(self, output: dict, checked: bool) -> dict[str, Any] | None:
        kind = output.get("output_type")
        if kind == "stream":
            name = "stderr" if output.get("name") == "stderr" else "stdout"
            return {"output_type": kind, "name": name, "text": terminal(_text(output.get("text")))}
        if kind == "error":
            lines = output.get("traceback")
            text = "\n".join(map(str, lines)) if isinstance(lines, list) else ""
            made = {"output_type": kind, "traceback": terminal(text).split("\n")}
            for part in ("ename", "evalue"):
                made[part] = _cut(
                    visible(_text(output.get(part))), 1000, "({} characters left out)"
                )
            return made
        data = output.get("data")
        if kind not in ("display_data", "execute_result") or not isinstance(data, dict):
            return None
        made = self._data(data, checked)
        return {"output_type": "display_data", "data": made, "metadata": {}} if made else None

    def _data(self, data: dict, checked: bool) -> dict[str, str]:
        made = {}
        if "text/plain" in data:
            made["text/plain"] = terminal(_text(data["text/plain"]))
        page = _text(data.get("text/html"))
        card = _card(page) if checked else ""
        if card:
            made["text/html"] = card
        # gclib.analysis.figures shows a picture with its alt text, as HTML.
        inside = re.search(r'src="data:(image/png);base64,([A-Za-z0-9+/=]+)"', page)
        found = {inside[1]: inside[2]} if inside else {}
        for kind in ("image/png", "image/jpeg"):
            picture = self._picture(kind, data.get(kind, found.get(kind)))
            if picture:
                made[kind] = picture
        return made

    def _pictures(self, attachments: object, source: str) -> tuple[dict[str, str], dict]:
        """New names of the attachments that are shown and are pictures; and the pictures."""
        names: dict[str, str] = {}
        pictures: dict[str, dict[str, str]] = {}
        used = {found[2] for found in _PICTURE.finditer(source)}
        for name, data in attachments.items() if isinstance(attachments, dict) else ():
            if name not in used or not isinstance(data, dict):
                continue
            for kind in ("image/png", "image/jpeg", "image/gif"):
                picture = self._picture(kind, data.get(kind))
                if picture:
                    names[name] = f"picture-{len(names) + 1}.{kind.removeprefix('image/')}"
                    pictures[names[name]] = {kind: picture}
                    break
        return names, pictures

    def _picture(self, kind: str, data: object) -> str | None:
        """The picture in base64, if it is one of this kind and not too large."""
        text = _text(data)
        if not text or len(text) > 2 * LARGEST_PICTURE:
            return None
        from PIL import Image, UnidentifiedImageError

        try:
            content = base64.b64decode("".join(text.split()), validate=True)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of pictures with too many pixels
                image = Image.open(io.BytesIO(content), formats=["PNG", "JPEG", "GIF"])
            with image:
                same = image.get_format_mimetype() == kind
                small = image.width * image.height <= MOST_PIXELS
        except (binascii.Error, UnidentifiedImageError, OSError, ValueError, SyntaxError):
            return None
        except (Image.DecompressionBombError, Warning):
            return None
        if not same or not small or len(content) > min(LARGEST_PICTURE, self.bytes):
            return None
        self.bytes -= len(content)
        return base64.b64encode(content).decode()


def _text(value: object) -> str:
    """Text as JSON of notebooks holds it: a string or a list of lines."""
    if isinstance(value, list):
        return "".join(line for line in value if isinstance(line, str))
    return value if isinstance(value, str) else ""


def _cut(text: str, longest: int, note: str) -> str:
    if len(text) <= longest:
        return text
    kept = longest - 60
    return f"{text[:kept]}\n{note.format(f'{len(text) - kept:,}')}"


# Text


def visible(text: str) -> str:
    """Show what is there and cannot be seen: control, bidirectional and other marks.

    A right-to-left mark makes code read other than it runs; a lone surrogate cannot be written to
    a file; dozens of accents on one letter cover the lines around it.
    """
    text = re.sub(r"\r\n?|[\u2028\u2029]", "\n", text.removeprefix("\ufeff"))
    if text.isascii() and text.isprintable():
        return text
    text = re.sub(
        r"([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{4})"
        r"[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+",
        r"\1",
        text,
    )
    return "".join(map(_visible, text))


@cache
def _visible(character: str) -> str:
    kind = unicodedata.category(character)
    if kind == "Cc" and character not in "\n\t":
        number = ord(character)
        if number < 32 or number == 127:
            return chr(0x2400 + number) if number < 32 else "\u2421"  # pictures of control codes
        return f"⟨U+{number:04X}⟩"
    if kind == "Cf" and character not in "\u200c\u200d":  # joiners, which words and emoji need
        return f"⟨U+{ord(character):04X}⟩"
    return "\ufffd" if kind == "Cs" else character


_LEFT_OUT = "the other outputs are left out: this notebook prints too much\n"
_COLOUR = re.compile(r"(\x1b\[[\d;]*m)")
_ESCAPE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b\[[0-?]*[ -/]*[@-ln-~]|\x1b\[[<-?]?[\d:;]*m"
)


def terminal(text: str) -> str:
    """What a terminal would show: the last state of a progress bar, and colours; not too long."""
    text = text.replace("\r\n", "\n")
    if "\r" in text:
        lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
        text = "\n".join(lines)
    if "\x1b" in text:
        text = _ESCAPE.sub(lambda found: found[0] if _is_colour(found[0]) else "", text)
    parts = _COLOUR.split(text)
    text = "".join(part if _is_colour(part) else visible(part) for part in parts)
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        first = MOST_LINES * 2 // 3
        last = MOST_LINES - first - 1
        left = f"... {len(lines) - first - last:,} lines left out ..."
        text = "\n".join([*lines[:first], left, *lines[-last:]])
    return _cut(text, LONGEST_OUTPUT, "... {} characters left out")


def _is_colour(text: str) -> bool:
    """Whether it is an escape for colours that nbconvert reads without stumbling."""
    if not _COLOUR.fullmatch(text):
        return False
    extended = r"[34]8;5;\d{1,3}|[34]8;2;\d{1,3};\d{1,3};\d{1,3}"
    plain = r"\d|[1279]\d|3[0-79]|4[0-79]|10[0-7]"
    return bool(re.fullmatch(f"(?:(?:{extended}|{plain})(?:;|$))*", text[2:-1]))


# Cards of the checks


@cache
def _card_tags() -> frozenset[str]:
    """The tags of cards, from cards."""
    from gclib.checks import cards
    from gclib.checks.outcome import CheckFailed, NotAttempted

    with cards.collected() as shown:
        cards.show_passed("", "", 1, hidden=True)
        cards.show_not_attempted(NotAttempted("", ""))
        cards.show_failed(CheckFailed("", "", expected="-", got="-", cause="-", look="-"))
    return frozenset(tag for card in shown for tag in _TAG.findall(card["text/html"]))


_TAG = re.compile("<[^<>]*>")


def _card(page: str) -> str:
    """The card, if it is one, with the TeX in its text made harmless; or else nothing."""
    texts = _TAG.split(page)
    if not set(_TAG.findall(page)) <= _card_tags() or any("<" in t or ">" in t for t in texts):
        return ""
    made = (html.escape(tex(visible(html.unescape(text)))) for text in texts)
    return "".join(
        part for pair in zip(made, [*_TAG.findall(page), ""], strict=True) for part in pair
    )


# Markdown

_LANGUAGES = (
    "python|python3|py|pycon|ipython|ipython3|pytb|text|txt|plain|bash|sh|console|json|yaml"
)
_PICTURE = re.compile(r"!\[([^\[\]\n]*)\]\(attachment:([^()\n]*)\)")
_ADDRESS = re.compile(r"(?i)[a-z\d+.-]:(?=//)|www\.(?=\S)")
_FENCE = re.compile(
    rf"(?i)((?<!`)`{{3,}}(?!`)|(?<!~)~{{3,}}(?!~))[ \t]*(?!(?:{_LANGUAGES})\b)(?=[^\s`~])"
)
_HEADING = re.compile(r"(?m)^([ \t>*+\-:.)\d]*#{1,6})(?!#)(?![ \t]*·)[ \t]*")
_UNDERLINE = re.compile(r"(?m)^([ \t>*+:.)\d]*)(?:(=)(=*)|(-)(-*))[ \t]*$")


def markdown(source: str, pictures: dict[str, str] | None = None) -> str:
    """Markdown in which no program finds HTML, links, or TeX that does more than formulas.

    Args:
        source: as :func:`visible` returns it.
        pictures: attachments to show: their names, and those to use instead.
    """
    source = _cut(source, LONGEST_MARKDOWN, "({} characters left out)")
    shown: list[str] = []

    def keep(found: re.Match) -> str:
        name = (pictures or {}).get(found[2])
        if name is None:
            return found[0]
        alt = re.sub(r"[^\w ,.;:=+%-]", "", found[1])[:100]
        shown.append(f"![{alt}](attachment:{name})")
        return f"\0{len(shown) - 1}\0"  # visible() has left none of these

    text = _PICTURE.sub(keep, source)
    text = visible_entities(text)
    text = re.sub(r"<(?=[A-Za-z/!?])", "< ", text)
    text = re.sub(r"\](?=[(:\[])", "] ", text)
    text = _ADDRESS.sub(lambda found: f"{found[0]} ", text)
    text = _FENCE.sub(r"\1text ", text)
    text = _HEADING.sub(r"\1 · ", text)
    text = _UNDERLINE.sub(_no_underline, text)
    text = tex(text)
    if _depth(text) > DEEPEST:
        text = re.sub(r"\\(?=[A-Za-z(\[])", r"\\ ", text).replace("$", "＄")
    text = _cut(text, LONGEST_MARKDOWN, "({} characters left out)")
    return re.sub("\0(\\d+)\0", lambda found: shown[int(found[1])], text)


def visible_entities(text: str) -> str:
    """Decode entities once; what still looks like one gets a space."""
    text = re.sub(r"&(?:#\d{1,7}|#[xX][\da-fA-F]{1,6}|[A-Za-z]\w{1,31});", _entity, text)
    return re.sub(r"&(?=[A-Za-z#])", "& ", text)


def _entity(found: re.Match) -> str:
    decoded = html.unescape(found[0])
    return found[0] if decoded == found[0] else visible(decoded)


def _no_underline(found: re.Match) -> str:
    """A line under a title would make it a heading: a rule instead, or nothing for formulas."""
    if found[5]:
        return f"{found[1]}* * *"
    return f"{found[1]}{found[2] or found[4]}{{}}{found[3] or ''}"


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in re.findall(r"[{}]", text):
        depth = depth + 1 if character == "{" else max(0, depth - 1)
        deepest = max(deepest, depth)
    return deepest


_NAMES_OF_ENVIRONMENTS = """
    align align* aligned alignedat array bmatrix Bmatrix cases equation equation* gather gather*
    gathered matrix pmatrix smallmatrix split vmatrix Vmatrix"""
_NAMES_OF_COMMANDS = """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi
    omicron pi varpi rho varrho sigma varsigma tau upsilon phi varphi chi psi omega digamma
    Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar imath jmath wp aleph beth
    Re Im partial nabla infty emptyset varnothing forall exists nexists neg lnot top bot angle
    triangle square Box Diamond diamond star prime backprime dagger ddagger complement degree
    frac dfrac tfrac cfrac binom dbinom tbinom sqrt over choose overline underline widehat widetilde
    overbrace underbrace overset underset stackrel substack overrightarrow overleftarrow boxed
    hat check tilde acute grave dot ddot dddot breve bar vec mathring not
    sum prod coprod int iint iiint oint bigcup bigcap bigsqcup bigvee bigwedge bigoplus bigotimes
    bigodot biguplus limits nolimits displaystyle textstyle scriptstyle
    lim limsup liminf max min sup inf arg argmax argmin det dim exp gcd hom ker lg ln log deg Pr
    sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth operatorname mod bmod pmod pod
    pm mp times div ast cdot circ bullet cap cup uplus sqcap sqcup vee wedge lor land setminus wr
    oplus ominus otimes oslash odot bigcirc amalg boxplus boxminus boxtimes boxdot ltimes rtimes
    le leq leqslant ge geq geqslant lt gt ll gg lll ggg ne neq equiv sim simeq approx cong doteq
    propto asymp prec succ preceq succeq subset supset subseteq supseteq subsetneq supsetneq
    sqsubseteq sqsupseteq in ni notin mid nmid parallel nparallel perp vdash dashv models vDash
    triangleq coloneqq eqqcolon lesssim gtrsim approxeq because therefore bowtie
    to gets mapsto leftarrow rightarrow leftrightarrow Leftarrow Rightarrow Leftrightarrow
    longleftarrow longrightarrow longleftrightarrow Longleftarrow Longrightarrow Longleftrightarrow
    longmapsto implies impliedby iff uparrow downarrow updownarrow Uparrow Downarrow Updownarrow
    nearrow searrow swarrow nwarrow hookrightarrow hookleftarrow rightharpoonup rightharpoondown
    leftharpoonup leftharpoondown rightleftharpoons leadsto rightsquigarrow xrightarrow xleftarrow
    left right middle big Big bigg Bigg bigl bigr bigm Bigl Bigr Bigm biggl biggr biggm Biggl Biggr
    Biggm langle rangle lfloor rfloor lceil rceil lvert rvert lVert rVert vert Vert lbrace rbrace
    lbrack rbrack backslash dots ldots cdots vdots ddots dotsc dotsb dotsm dotsi colon quad qquad
    enspace thinspace space text textrm textbf textit textsf texttt textnormal mathrm mathbf mathit
    mathsf mathtt mathbb mathcal mathfrak mathscr mathnormal mathop mathbin mathrel boldsymbol bm
    bf rm it cal mathord mathopen mathclose mathpunct hline nonumber notag cr"""
_ENVIRONMENTS = frozenset(_NAMES_OF_ENVIRONMENTS.split())
_COMMANDS = frozenset(_NAMES_OF_COMMANDS.split())
_COMMAND = re.compile(r"\\(?:(?:begin|end)\{([A-Za-z]*\*?)\}|([A-Za-z]{2,}))")


def tex(text: str) -> str:
    """Show every command of TeX that formulas do not need as text.

    MathJax knows commands that link, load, style, set ids or define others, and more with each
    release; so the good ones are listed. Single letters stay: most are no commands.
    """
    return _COMMAND.sub(_command, text)


def _command(found: re.Match) -> str:
    good = found[1] in _ENVIRONMENTS if found[1] is not None else found[2] in _COMMANDS
    return found[0] if good else f"\\ {found[0][1:]}"
