"""Links inside the book lead somewhere. Those to the outside: make links."""

from urllib.parse import unquote, urlsplit


def test_every_link_and_anchor_inside_the_book_resolves(html, soup):
    pages = {
        path: soup(path.relative_to(html).with_suffix(""))
        for path in html.rglob("*.html")
        if "_static" not in path.parts and path.name != "404.html"  # its links begin at the root
    }
    anchors = {path: {e["id"] for e in page.select("[id]")} for path, page in pages.items()}
    broken = []
    for path, page in pages.items():
        for element, attribute in (
            ("a", "href"),
            ("link", "href"),
            ("img", "src"),
            ("script", "src"),
        ):
            for node in page.find_all(element, attrs={attribute: True}):
                url = urlsplit(node[attribute])
                if url.scheme or url.netloc:
                    continue
                target = (path.parent / unquote(url.path)).resolve() if url.path else path
                if not target.is_file() or (
                    url.fragment
                    and target in anchors
                    and unquote(url.fragment) not in anchors[target]
                ):
                    broken.append((path.relative_to(html).as_posix(), node[attribute]))
    assert broken == []
