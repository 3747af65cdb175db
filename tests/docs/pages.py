"""README and docs as the tests read them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, its line in the page."""

    kind: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(m[1], m[2], text[: m.start()].count("\n") + 1)
        for m in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)
    ]


def table(page: str, header: str) -> list[list[str]]:
    """The cells of the table that begins with this header line, without their backticks."""
    lines = (ROOT / page).read_text().split("\n")
    start = lines.index(header) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return rows


def under(page: str, heading: str) -> list[list[str]]:
    """The first table after a line that reads so."""
    text = (ROOT / page).read_text()
    after = text[text.index(f"\n{heading}\n") :]
    header = next(line for line in after.split("\n") if line.startswith("|"))
    rows = after[after.index(header) :].split("\n\n")[0].strip().split("\n")[2:]
    return [[cell.strip().replace("`", "") for cell in row.strip("|").split("|")] for row in rows]
