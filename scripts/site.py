"""Prepares the pages of the site, checks what was built, and puts it beside earlier versions; see scripts/docs.

site.py gather|check
site.py publish DIR
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
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


MERMAID = "mermaid@12.3.0"
"""What draws the diagrams, from npm. The theme would fetch it from another site whenever a page is shown."""
MERMAID_HASH = "4113TdXeLAsMruJ79OpFL5O8+LTFXhQqZ260rF3tgUmiNAtRm4Uume04I+65PRN6yZ69J4f8rVYWW8zRk65UYw=="
DRAWING = "assets/mermaid.min.js"
STARS = ' data-md-component="source"'
"""By this mark of a link the theme asks GitHub, whenever a page is shown, how many stars the repository has."""


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
    (PAGES / DRAWING).parent.mkdir(exist_ok=True)
    (PAGES / DRAWING).write_bytes(_mermaid())
    for page in PAGES.rglob("*.md"):
        if "```mermaid" in (text := page.read_text()):
            script = os.path.relpath(PAGES / DRAWING, page.parent)
            page.write_text(f'{text}\n<script src="{script}"></script>\n')


def _mermaid() -> bytes:
    """Return the script that draws diagrams, fetched once."""
    archive = ROOT / "build" / f"{MERMAID.replace('@', '-')}.tgz"
    if not archive.exists():
        pack = ["npm", "pack", MERMAID, "--silent", "--pack-destination", str(archive.parent)]
        subprocess.run(pack, check=True, stdout=subprocess.DEVNULL, timeout=300)
    if base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() != MERMAID_HASH:
        archive.unlink()
        sys.exit(f"{archive.name} is not what it was when it was chosen")
    with tarfile.open(archive) as files:
        script = files.extractfile("package/dist/mermaid.min.js")
        assert script is not None
        return script.read()


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
        self.loaded: list[str] = []
        """What a browser fetches to show the page."""
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
                if name == "src" or (
                    tag == "link" and dict(attributes).get("rel") not in ("canonical", "prev", "next")
                ):
                    self.loaded.append(value)


def check() -> int:
    """Finish the pages, and put their sources beside them, for programs; return how many links lead nowhere."""
    shutil.copytree(
        PAGES, SITE, ignore=lambda _, names: {n for n in names if n.endswith((".png", ".svg"))}, dirs_exist_ok=True
    )
    pages = {}
    for path in SITE.rglob("*.html"):
        html = path.read_text().replace(STARS, "")
        path.write_text(html)
        pages[path] = _Page(html)
    wrong = []
    for path, page in pages.items():
        wrong += [f"{path.relative_to(SITE)}: {each}: of another site" for each in page.loaded if urlsplit(each).netloc]
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


def publish(place: Path) -> None:
    """Put the site that was built into `place` as its version, such as 2.0, and as ``latest``, beside earlier ones.

    ``versions.json``, which the pages read for their list of versions, has the form that mike gave it.
    """
    number = re.search(r'^__version__ = "(\d+\.\d+)', (ROOT / "stiqueue" / "_version.py").read_text(), re.M)
    assert number is not None
    place.mkdir(parents=True, exist_ok=True)
    listed = place / "versions.json"
    versions = {each["version"] for each in json.loads(listed.read_text())} if listed.exists() else set()
    newest, *older = sorted({*versions, number[1]}, key=lambda each: [int(part) for part in each.split(".")])[::-1]
    for name in [number[1], *(["latest"] if newest == number[1] else [])]:
        shutil.rmtree(place / name, ignore_errors=True)
        shutil.copytree(SITE, place / name)
    entries = [{"version": newest, "title": newest, "aliases": ["latest"]}]
    entries += [{"version": each, "title": each, "aliases": []} for each in older]
    listed.write_text(json.dumps(entries, indent=2) + "\n")
    (place / "index.html").write_text('<!doctype html><meta http-equiv="refresh" content="0; url=latest/">\n')
    (place / ".nojekyll").touch()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["gather"]:
            gather()
        case ["check"]:
            sys.exit(1 if check() else 0)
        case ["publish", place]:
            publish(Path(place))
        case _:
            sys.exit("usage: scripts/docs")
