"""The site of the documentation beside those of other versions."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a project and a built site of its own."""
    spec = importlib.util.spec_from_file_location("stiqueue_site", ROOT / "scripts" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "SITE", tmp_path / "built")
    return module


def release(site: ModuleType, version: str, text: str) -> None:
    (site.ROOT / "stiqueue").mkdir(exist_ok=True)
    (site.ROOT / "stiqueue" / "_version.py").write_text(f'__version__ = "{version}"\n')
    site.SITE.mkdir(exist_ok=True)
    (site.SITE / "index.html").write_text(text)
    site.publish(site.ROOT / "all")


def found(site: ModuleType) -> dict[str, str]:
    return {page.parent.name: page.read_text() for page in (site.ROOT / "all").glob("*/index.html")}


def versions(site: ModuleType) -> list[tuple[str, list[str]]]:
    listed = json.loads((site.ROOT / "all" / "versions.json").read_text())
    return [(each["version"], each["aliases"]) for each in listed]


def test_each_version_keeps_its_site_and_the_newest_is_the_latest(site: ModuleType) -> None:
    release(site, "2.9.0", "old")
    assert found(site) == {"2.9": "old", "latest": "old"}
    release(site, "2.10.0", "new")
    assert found(site) == {"2.9": "old", "2.10": "new", "latest": "new"}
    assert versions(site) == [("2.10", ["latest"]), ("2.9", [])]
    assert 'url=latest/"' in (site.ROOT / "all" / "index.html").read_text()


def test_a_patch_takes_the_place_of_its_version_alone(site: ModuleType) -> None:
    release(site, "2.0.0", "old")
    release(site, "2.1.0", "new")
    release(site, "2.0.1", "mended")
    assert found(site) == {"2.0": "mended", "2.1": "new", "latest": "new"}
    assert versions(site) == [("2.1", ["latest"]), ("2.0", [])]
