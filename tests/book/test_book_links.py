"""The checker of built pages: a good site passes, each kind of damage is named."""

import pytest

from gclib.book.check import main, problems

GOOD = {
    "index.html": "<title>Start</title><h1>Start</h1>"
    '<a href="b/two.html#there">two</a> <a href="#here" id="here">here</a>'
    '<a href="https://arxiv.org/abs/1904.11492">paper</a> <a href="mailto:a@b.org">write</a>'
    '<img src="a.png" alt="A map."><img alt="x" src="data:image/png;base64,AA">'
    '<link rel="stylesheet" href="a.css?v=1"><script src="a.js"></script>'
    '<svg><use href="#here"></use></svg>',
    "b/two.html": '<title>Two</title><h1 id="there">Two</h1><a href="../index.html">back</a>',
    "a.png": "",
    "a.css": 'p { background: url("a.png") }',
    "a.js": "",
}


@pytest.fixture
def site(tmp_path):
    for name, text in GOOD.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_good_site_has_no_problems(site, capsys):
    assert list(problems(site)) == []
    assert main([str(site)]) == 0
    assert capsys.readouterr().out == "Every link, anchor and picture is there.\n"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (
            "index.html",
            "two.html#there",
            "gone.html",
            "links to b/gone.html: there is no such file",
        ),
        ("index.html", "#there", "#gone", "links to b/two.html#gone: there is no such anchor"),
        ("index.html", 'href="#here"', 'href="#gone"', "links to #gone: there is no such anchor"),
        ("index.html", "b/two.html#there", "b", "links to b: a folder"),
        ("b/two.html", "../index.html", "../../x.html", "it leads out of the book"),
        ("index.html", "https://arxiv.org", "https://arxiv", "not a well-formed address"),
        ("index.html", "https://arxiv.org", "https://ar xiv.org", "not a well-formed address"),
        ("index.html", "https://arxiv.org", "javascript://arxiv.org", "not an address for a book"),
        ("index.html", "https://arxiv.org", "//arxiv.org", "not an address for a book"),
        ("index.html", "mailto:a@b.org", "mailto:a", "not an address"),
        ("index.html", 'src="a.js"', 'src="https://cdn.org/a.js"', "it comes from another place"),
        ("index.html", "a.css?v=1", "//cdn.org/a.css", "it comes from another place"),
        ("index.html", 'src="a.png"', 'src="b.png"', "loads b.png: there is no such file"),
        ("index.html", 'alt="A map."', 'alt=""', "the picture a.png has no alt text"),
        ("index.html", 'alt="A map."', "", "the picture a.png has no alt text"),
        ("a.css", "a.png", "https://fonts.org/a.woff", "it comes from another place"),
        ("a.css", "a.png", "gone.woff", "there is no such file"),
        ("index.html", "<h1>Start</h1>", "<h2>Start</h2>", "has 0 headings of level 1"),
        ("index.html", "<h1>", "<h1>a</h1><h1>", "has 2 headings of level 1"),
        ("b/two.html", "<title>Two</title>", "", "has no title"),
        ("b/two.html", "<a ", '<a id="there" ', "has the anchor #there 2 times"),
        (
            "index.html",
            "<title>",
            "<style>p{background:url(http://x.org/a)}</style><title>",
            "loads",
        ),
    ],
)
def test_damage_is_named(site, capsys, file, old, new, said):
    text = (site / file).read_text()
    assert old in text
    (site / file).write_text(text.replace(old, new, 1))
    (problem,) = problems(site)
    assert problem.startswith(file)
    assert said in problem
    assert main([str(site)]) == 1
    assert "1 problems" in capsys.readouterr().out


def test_a_folder_without_pages_is_no_book(tmp_path):
    assert list(problems(tmp_path)) == [f"{tmp_path.name} holds no pages"]
    assert main([]) == 2
