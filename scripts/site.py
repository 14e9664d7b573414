"""Prepares the pages of the site and checks what was built; see scripts/docs."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "pages"
SITE = ROOT / "build" / "site"
OUTSIDE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"} | {
    "SECURITY.md": "security.md"
}
"""Files outside of docs/ that are pages, with their names on the site."""
LINK = re.compile(r"(?P<before>\]\()(?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?(?=\))")
CONFIGURATION = (ROOT / "mkdocs.yml").read_text()
REPOSITORY = re.search(r"^repo_url: (\S+)$", CONFIGURATION, re.M)[1]  # type: ignore[index]


def gather() -> None:
    """Copy docs/ and the pages outside of it to `PAGES`; links to other files lead to the repository."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES)
    for page in PAGES.rglob("*.md"):
        source = ROOT / "docs" / page.relative_to(PAGES)
        page.write_text(LINK.sub(lambda match, at=source: _moved(match, at), page.read_text()))
    for name, page in OUTSIDE.items():
        (PAGES / page).write_text(LINK.sub(lambda match, at=ROOT / name: _moved(match, at), (ROOT / name).read_text()))
    (PAGES / "llms.txt").write_text(_for_machines())


def _moved(link: re.Match[str], source: Path) -> str:
    """Return a link of the page `source` as it has to be on the site."""
    target, anchor = link["target"], link["anchor"] or ""
    if urlsplit(target).scheme:
        return link[0]
    path = Path(os.path.normpath(source.parent / target)).relative_to(ROOT)
    here = _place(source.relative_to(ROOT))
    there = _place(path)
    if here is None or there is None:
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"{link['before']}{REPOSITORY}/{kind}/main/{path}{anchor}"
    return f"{link['before']}{os.path.relpath(there, here.parent)}{anchor}"


def _place(path: Path) -> Path | None:
    """Return where a file of the repository is among the pages; None: nowhere."""
    if str(path) in OUTSIDE:
        return Path(OUTSIDE[str(path)])
    return path.relative_to("docs") if path.is_relative_to("docs") else None


def _for_machines() -> str:
    """Return llms.txt: the pages with their first sentence, for programs that read documentation."""
    configuration = yaml.load(CONFIGURATION, _Loader)
    lines = [f"# {configuration['site_name']}", "", f"> {configuration['site_description']}", ""]
    for title, page in _entries(configuration["nav"]):
        if page is None:
            lines += ["", f"## {title}", ""]
        else:
            lines.append(f"- [{title}]({page}): {_summary((PAGES / page).read_text())}")
    return re.sub("\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def _entries(nav: list[dict[str, object] | str], title: str = "") -> Iterator[tuple[str, str | None]]:
    for entry in nav:
        for name, value in entry.items() if isinstance(entry, dict) else [(title, entry)]:
            if isinstance(value, list):
                if not title:
                    yield name, None
                yield from _entries(value, name)
            else:
                yield name, str(value)


def _summary(page: str) -> str:
    """Return the first sentence of a page, without links; of a page made of docstrings, what it is made of."""
    text = page.partition("\n\n")[2].partition("\n\n")[0].replace("\n", " ")
    if text.startswith(":::"):
        return ", ".join(re.findall(r"^::: (\S+)", page, re.M)) + ", from the docstrings."
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return text.partition(". ")[0].rstrip(".:") + "."


class _Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tag for a function is of no interest here."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda *_: None)


class _Page(HTMLParser):
    """The links and anchors of one page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors = {"", "__top"}
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note what links where, and what can be linked to."""
        for name, value in attributes:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value)
            elif name in ("href", "src"):
                self.links.append(value)


def check() -> int:
    """Put the sources of the pages beside them, for programs; report links that lead nowhere and return how many."""
    shutil.copytree(
        PAGES, SITE, ignore=lambda _, names: {n for n in names if n.endswith((".png", ".svg"))}, dirs_exist_ok=True
    )
    pages = {path: _Page(path.read_text()) for path in SITE.rglob("*.html")}
    wrong = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are relative to wherever it is shown
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link.startswith(REPOSITORY) and not _is_in_repository(parts.path):
                    wrong.append(f"{path.relative_to(SITE)}: {link}: not in the repository")
                continue
            target = (
                (SITE / parts.path.lstrip("/")) if parts.path.startswith("/") else (path.parent / unquote(parts.path))
            )
            target = Path(os.path.normpath(target)) if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                wrong.append(f"{path.relative_to(SITE)}: {link}: no such file")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                wrong.append(f"{path.relative_to(SITE)}: {link}: no such anchor")
    for text in wrong:
        print(text, file=sys.stderr)
    print(f"{len(pages)} pages, {sum(len(page.links) for page in pages.values())} links, {len(wrong)} wrong")
    return len(wrong)


def _is_in_repository(path: str) -> bool:
    """Whether a path below the repository's address, such as /owner/name/blob/main/proto, is one of ours."""
    kind, _, inside = path.removeprefix(urlsplit(REPOSITORY).path).strip("/").partition("/main/")
    return kind not in ("blob", "tree") or (ROOT / inside).exists()


if __name__ == "__main__":
    if sys.argv[1:] == ["gather"]:
        gather()
    elif sys.argv[1:] == ["check"]:
        sys.exit(1 if check() else 0)
    else:
        sys.exit("usage: scripts/docs")
