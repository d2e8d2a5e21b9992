"""Tables and lines for a terminal: they fit 80 columns, stay readable in ASCII, and nothing is parsed as markup."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.measure import Measurement as Width
from rich.table import Table
from rich.text import Text

from pipeline.visible import shown_text

_ASCII = str.maketrans(
    {"−": "-", "–": "-", "—": "-", "…": "...", "×": "x", "≤": "<=", "≥": ">=", "→": "->", "·": "-", "✓": "ok", "✗": "X"}
    | {"∞": "inf", "µ": "u", "\u202f": " ", "█": "#", "°": " deg", "±": "+-", "≈": "~"}
)
_NARROWEST_FOLD = 8  # characters that a column which may wrap needs to be readable
_ASCII_BOX = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A console and what it can show."""

    console: Console

    def text(self, text: str, style: str = "") -> Text:
        """Return text without markup, in ASCII where the terminal knows nothing else."""
        plain = "".join(each if each.isprintable() else " " for each in shown_text(text))
        if self.console.options.ascii_only:
            plain = plain.translate(_ASCII).encode("ascii", "replace").decode()
        return Text(plain, style=style)

    def line(self, text: str = "", style: str = "", indent: int = 0) -> None:
        """Print one paragraph; further lines are indented like the first."""
        width = self.console.width - indent
        for part in self.text(text, style).wrap(self.console, width) or [Text()]:
            part.rstrip()
            self.console.print(Text(" " * indent) + part, highlight=False, soft_wrap=True)

    def command(self, text: str) -> None:
        """Print one line that stays one line, however narrow the terminal: it is there to be copied."""
        self.console.print(self.text(text), highlight=False, soft_wrap=True)

    def table(self, *columns: tuple[str, str], title: str = "") -> Table:
        """Return an empty table; each column: a heading and ``left``, ``right`` or ``fold`` (left, may wrap)."""
        table = Table(
            box=_ASCII_BOX if self.console.options.ascii_only else box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            show_edge=False,
            title=self.text(title, "bold") if title else None,
            title_justify="left",
            header_style="dim",
        )
        tallest = max(len(heading.split("\n")) for heading, _ in columns)
        for heading, kind in columns:
            lines = heading.split("\n")
            table.add_column(
                Text("\n").join(self.text(line) for line in [""] * (tallest - len(lines)) + lines),
                justify="right" if kind == "right" else "left",
                overflow="fold",
                no_wrap=kind != "fold",
            )
        return table

    def row(self, table: Table, *cells: str, style: str = "") -> None:
        """Add one row of plain text."""
        table.add_row(*(self.text(cell) for cell in cells), style=style)

    def print(self, table: Table) -> None:
        """Print a table with an empty line after it; columns that do not fit move together, then become a list."""
        room = self.console.width
        if Width.get(self.console, self.console.options.update(width=1000), table).maximum > room:
            table.padding = (0, 0)
        fixed = [column for column in table.columns if column.no_wrap]
        widest = sum(max(_widest_line(cell) for cell in [column.header, *column.cells]) + 1 for column in fixed)
        if widest + _NARROWEST_FOLD * (len(table.columns) - len(fixed)) > room:
            self._list(table)
        elif self.console.is_terminal:
            self.console.print(table)
        else:  # a file or a pipe: no blanks at the ends of lines
            with self.console.capture() as captured:
                self.console.print(table)
            for line in captured.get().splitlines():
                self.command(line.rstrip())
        self.console.print()

    def _list(self, table: Table) -> None:
        """Print each row as a paragraph: the first cell, and below it the others with their headings."""
        if table.title:
            self.line(str(table.title), "bold")
        headings = [" ".join(str(column.header).split()) for column in table.columns]
        for row in zip(*(column.cells for column in table.columns), strict=True):
            first, *rest = (str(cell) for cell in row)
            self.line(first, "bold")
            said = [" ".join(filter(None, pair)) for pair in zip(headings[1:], rest, strict=True) if pair[1].strip()]
            self.line(" · ".join(said), indent=2)


def _widest_line(cell: object) -> int:
    return max(len(line) for line in str(cell).split("\n"))
