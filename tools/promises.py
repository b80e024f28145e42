"""The figures of a report in README.md: whether the promises are met, and what runs side by side gain.

    pool-admin report --out report && python -m tools.promises report/report.md

What stands between `<!-- pool-admin report -->` and `<!-- end -->` is replaced by the report's decision with its
inputs, its table "Side by side" and its lines about the machine, as they are.
"""

import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
_BLOCK = re.compile(r"(?<=<!-- pool-admin report -->\n).*?(?=<!-- end -->)", re.DOTALL)
#: Sections of the report that are quoted, by their headings; the first one has the title of the report.
QUOTED = ("# The sandbox: what it costs, and whether to enable it", "## Side by side", "## How it was measured")


def render(page: str, report: str) -> str:
    """The page with the figures of the report. Raises ValueError for a page or a report without its parts."""
    quoted = "\n\n".join(text for text in (_section(report, heading) for heading in QUOTED) if text)
    if not quoted.startswith("**Decision:"):
        raise ValueError("this is no report: pool-admin report --out DIR writes DIR/report.md")
    changed, count = _BLOCK.subn(lambda _: f"\n{quoted}\n\n", page)
    if count != 1:
        raise ValueError("the page has to have one block <!-- pool-admin report --> ... <!-- end -->")
    return changed


def _section(report: str, heading: str) -> str:
    """What stands below a heading; "" where the report was made without that part."""
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^#|\Z)", report, re.DOTALL | re.MULTILINE)
    return found[1].strip() if found else ""


def main() -> None:
    report = Path(sys.argv[1]).read_text(encoding="utf-8")
    README.write_text(render(README.read_text(encoding="utf-8"), report), encoding="utf-8")


if __name__ == "__main__":
    main()
