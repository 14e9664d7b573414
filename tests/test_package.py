"""What users install: the files in the wheel and in the sdist, the version, and the names that they import."""

import importlib
import importlib.metadata
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import stiqueue

ROOT = Path(__file__).parents[1]
STUBS = {"__init__.py", "queue_pb2.py", "queue_pb2.pyi", "queue_pb2_grpc.py", "queue_pb2_grpc.pyi"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory with a wheel made from an sdist made from this checkout."""
    directory = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", directory, ROOT], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def sources(pattern: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern) if "__pycache__" not in path.parts}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_wheel_has_the_package_with_stubs_types_and_licence(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(f"stiqueue-{stiqueue.__version__}.dist-info/entry_points.txt").decode()
    meta = f"stiqueue-{stiqueue.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(meta)} == sources("stiqueue/**/*.py*") | {"stiqueue/py.typed"}
    assert {f"stiqueue/v1/{name}" for name in STUBS} | {meta + "licenses/LICENSE"} <= names
    assert "stiqueue-server = stiqueue.sqserver:main" in entry_points


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_sdist_has_the_protocol_and_the_tests_as_well(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = sources("stiqueue/**/*.py*") | sources("proto/**/*.proto") | sources("tests/**/*.py")
    assert wanted | {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "scripts/proto"} <= names


def test_the_version_is_told_once() -> None:
    assert importlib.metadata.version("stiqueue") == stiqueue.__version__
    assert f"## {stiqueue.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_all_is_sorted_and_complete() -> None:
    ours = {name for name, value in vars(stiqueue).items() if getattr(value, "__module__", "").startswith("stiqueue.")}
    lazy = {name: importlib.import_module(module) for name, module in stiqueue._MODULES.items()}
    assert set(stiqueue.__all__) == ours | lazy.keys() | {"__version__"}
    assert list(stiqueue.__all__) == sorted(stiqueue.__all__, key=lambda name: (not name.isupper(), name))
    for name, module in lazy.items():
        assert getattr(stiqueue, name) is getattr(module, name)


def test_the_package_imports_neither_pytest_nor_the_server() -> None:
    program = "import stiqueue, sys; print({'pytest', 'stiqueue.sqserver', 'stiqueue.aio'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
