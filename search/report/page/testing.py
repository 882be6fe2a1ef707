"""Checks of a page's structure, for tests of reports and of plug-ins that write pages."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

MOST_BYTES = 1_500_000
_VOID = {"meta", "br", "link", "img", "input", "hr"}
_LOADS = ("src", "href", "srcset", "data", "action", "poster")


@dataclass
class Page:
    """What a page holds.

    Attributes:
        text: Its text, without scripts and styles.
        rows: Texts of the cells of each table row.
        ids: Every `id`.
        loads: Tag, attribute and value of everything that names another resource or place.
        headings: Levels of its headings.
        labels: The names of its drawings and of the points in them.
        scripts: Texts of its scripts.
        problems: What is wrong with its structure, one text each.
    """

    text: str = ""
    rows: list[list[str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    loads: list[tuple[str, str, str]] = field(default_factory=list)
    headings: list[int] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def row(self, first: str) -> list[str]:
        """Returns the first table row that begins with a text. Raises StopIteration if there is none."""
        return next(row for row in self.rows if row and row[0].startswith(first))


def read_page(text: str) -> Page:
    """Returns what a page holds, and what is wrong with it.

    Wrong are: tags that are not closed in order, an `id` that occurs twice, a link to an `id` that does not exist, a drawing without a
    name, a level of headings that is skipped, a resource from elsewhere, and more than 1.5 MB.
    """
    reader = _Reader()
    reader.feed(text)
    reader.close()
    page = reader.page
    page.problems += [f"<{tag}> is not closed" for tag in reader.open]
    page.problems += [f"id {i} occurs twice" for i in sorted({i for i in page.ids if page.ids.count(i) > 1})]
    links = {value[1:] for _, name, value in page.loads if name == "href" and value.startswith("#")}
    page.problems += [f"#{link} leads nowhere" for link in sorted(links - set(page.ids))]
    page.problems += [
        f"<{tag} {name}={value}> loads from elsewhere" for tag, name, value in page.loads if "//" in value
    ]
    before = 0
    for level in page.headings:
        if level > before + 1:
            page.problems.append(f"h{level} follows h{before}")
        before = level
    if (size := len(text.encode("utf-8", "replace"))) > MOST_BYTES:
        page.problems.append(f"{size} bytes, more than {MOST_BYTES}")
    return page


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        page = self.page
        page.loads += [(tag, name, value) for name, value in given.items() if name in _LOADS]
        page.ids += [given["id"]] if "id" in given else []
        if tag in ("svg", "img") or given.get("role") == "img":
            self._drawing(tag, given)
        elif "pt" in given.get("class", "").split() and "aria-label" in given:
            page.labels.append(given["aria-label"])
        if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            page.headings.append(int(tag[1]))
        if tag == "tr":
            page.rows.append([])
        if tag in ("td", "th") and page.rows:
            page.rows[-1].append("")
        if tag == "script":
            page.scripts.append("")
        if tag not in _VOID:
            self.open.append(tag)

    def _drawing(self, tag: str, given: dict[str, str]) -> None:
        label = given.get("aria-label") or given.get("alt") or ""
        if label:
            self.page.labels.append(label)
        elif given.get("aria-hidden") != "true":
            self.page.problems.append(f"<{tag}> has no name")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.page.problems.append(f"</{tag}> closes something else")

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.page.scripts[-1] += data
        elif "style" not in self.open:
            self.page.text += data
            if self.page.rows and ("td" in self.open or "th" in self.open):
                self.page.rows[-1][-1] += data
