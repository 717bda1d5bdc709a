"""Page: headings, text, figures and tables as one HTML page that needs nothing else.

No script, no other file, nothing from the network. All that is put in is escaped, but for the drawings.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

# Such as 1,234.5, 0.99 ± 0.01, 0.9 [0.8, 0.95], 12.5%, 3.1 s, or a dash for none.
_NUMBER = re.compile(r"-|-?\d[-\d.,]*(%| s)?( ± (-|[\d.,]+))?( \[.*\])?")
_TEMPLATE = Path(__file__).with_name("page.html.j2")


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
        svg: The drawing, as an element of HTML.
        alt: What it shows, for people who can't see it.
        caption: What is written below it.
    """

    svg: str
    alt: str
    caption: str = ""

    @property
    def drawing(self) -> Markup:
        """The drawing as it is, unescaped: Matplotlib has escaped what is written in it."""
        return Markup(self.svg)  # noqa: S704 - see above


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: What it holds.
        head: Its headings.
        rows: Its cells; columns of nothing but numbers are aligned to the right.
        marked: Rows that stand out, by number.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: frozenset[int] = frozenset()

    @property
    def numeric(self) -> frozenset[int]:
        """The columns that hold numbers."""
        columns = enumerate(zip(*self.rows, strict=True))
        return frozenset(
            place for place, cells in columns if all(not cell or _NUMBER.fullmatch(cell) for cell in cells)
        )


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        text: Its paragraphs.
        points: A list below them.
        figures: Drawings.
        tables: Tables.
        links: Addresses by what they lead to.
    """

    title: str
    text: Sequence[str] = ()
    points: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = ()
    links: Sequence[tuple[str, str]] = ()


def render(title: str, subtitle: str, sections: Sequence[Section]) -> bytes:
    """Write a page.

    Args:
        title: Its heading.
        subtitle: The line below it.
        sections: Its parts.

    Returns:
        HTML in UTF-8.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, subtitle=subtitle, sections=sections).encode()
