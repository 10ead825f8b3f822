"""Read a built site back: links, anchors, headings, alt texts, and nothing from far."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes that make a browser load something by itself.
LOADED = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
_FETCHED = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "manifest"}
LINKS = {"a": ("href",), "area": ("href",)}
_STYLE_URL = re.compile(r"""url\(\s*['"]?([^'")]+)['"]?\s*\)|@import\s+['"]([^'"]+)['"]""")


@dataclass
class Page(HTMLParser):
    """What the check needs to know of a page."""

    path: Path
    anchors: Counter = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    headings: int = 0
    without_alt: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    title: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._inside = ""
        text = self.path.read_text(encoding="utf-8")
        # Colours of code are most of the tags, and say nothing here.
        self.feed(re.sub(r'<span(?: class="[^"]*")?>|</span>', "", text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag refers to."""
        values = {name: value or "" for name, value in attrs}
        self._inside = tag
        if values.get("id"):
            self.anchors[values["id"]] += 1
        if tag == "a" and values.get("name") and values["name"] != values.get("id"):
            self.anchors[values["name"]] += 1
        self.headings += tag == "h1"
        if tag == "img" and not values.get("alt", "").strip():
            self.without_alt.append(values.get("src", "")[:60])
        self.links += [values[name] for name in LINKS.get(tag, ()) if name in values]
        if tag == "link" and not _FETCHED & set(values.get("rel", "").split()):
            self.links.append(values.get("href", ""))
            return
        for name in LOADED.get(tag, ()):
            if values.get(name):
                texts = values[name].split(",") if name == "srcset" else [values[name]]
                self.loaded += [text.split()[0] for text in texts if text.strip()]
        if "style" in values:
            self.styles.append(values["style"])

    def handle_endtag(self, tag: str) -> None:
        """Leave it."""
        self._inside = ""

    def handle_data(self, data: str) -> None:
        """Note the title and style sheets inside of the page."""
        if self._inside == "style":
            self.styles.append(data)
        elif self._inside == "title":
            self.title += data


def problems(folder: Path) -> Iterator[str]:
    """Yield what is wrong with a site, a sentence each.

    Every internal link must lead to a file and an anchor that are there, external ones must be
    well-formed; nothing may be loaded from another place; each page has one heading of level 1, a
    title, an alt text at each picture, and no anchor twice.

    Args:
        folder: with the site's HTML.
    """
    folder = folder.resolve()
    pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}
    if not pages:
        yield f"{folder.name} holds no pages"
    for path, page in pages.items():
        name = path.relative_to(folder).as_posix()
        if page.headings != 1:
            yield f"{name} has {page.headings} headings of level 1"
        if not page.title.strip():
            yield f"{name} has no title"
        yield from (f"{name}: the picture {source} has no alt text" for source in page.without_alt)
        for anchor, count in page.anchors.items():
            if count > 1:
                yield f"{name} has the anchor #{anchor} {count} times"
        for link in page.links:
            said = _link(link, path, folder, pages)
            if said:
                yield f"{name} links to {link}: {said}"
        addresses = [*page.loaded, *(_urls("\n".join(page.styles)))]
        for address in addresses:
            said = _loaded(address, path, folder)
            if said:
                yield f"{name} loads {address[:80]}: {said}"
    for path in sorted(folder.rglob("*.css")):
        for address in _urls(path.read_text(encoding="utf-8")):
            said = _loaded(address, path, folder)
            if said:
                yield f"{path.relative_to(folder).as_posix()} loads {address[:80]}: {said}"


def _urls(style: str) -> list[str]:
    return [one or other for one, other in _STYLE_URL.findall(style)]


def _link(link: str, path: Path, folder: Path, pages: dict[Path, Page]) -> str:
    """What is wrong with a link, or ``""``."""
    parts = urlsplit(link)
    if parts.scheme in ("http", "https"):
        host = parts.hostname or ""
        fine = re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host) or host in ("localhost",)
        return "" if fine and not re.search(r"\s", link) else "not a well-formed address"
    if parts.scheme == "mailto":
        return "" if re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", parts.path) else "not an address"
    if parts.scheme or parts.netloc:
        return "not an address for a book"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        return "a folder, which shows no page without a server"
    if not target.is_relative_to(folder):
        return "it leads out of the book"
    if not target.is_file():
        return "there is no such file"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return "there is no such anchor"
    return ""


def _loaded(address: str, path: Path, folder: Path) -> str:
    """What is wrong with what a browser loads by itself, or ``""``."""
    parts = urlsplit(address)
    if parts.scheme == "data" or (address.startswith("#") and len(address) > 1):
        return ""
    if parts.scheme or parts.netloc:
        return "it comes from another place"
    target = (path.parent / unquote(parts.path)).resolve()
    if not target.is_relative_to(folder):
        return "it lies outside of the book"
    return "" if target.is_file() else "there is no such file"


def main(argv: list[str] | None = None) -> int:
    """Check a folder: ``python -m gclib.book.check build/book``."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m gclib.book.check FOLDER", file=sys.stderr)
        return 2
    found = list(problems(Path(arguments[0])))
    for problem in found:
        print(problem, file=sys.stderr)
    print(f"{len(found)} problems" if found else "Every link, anchor and picture is there.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
