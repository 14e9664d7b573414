"""What users install: the files in the wheel and in the sdist, the version, and the names that they import."""

import importlib
import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import stiqueue
from stiqueue import polling

ROOT = Path(__file__).parents[1]
SERVER_BYTES = 80_000_000
"""What the environment that scripts/serve makes may take."""
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
def test_the_wheel_has_the_package_with_stubs_types_and_licence(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(f"stiqueue-{stiqueue.__version__}.dist-info/entry_points.txt").decode()
    meta = f"stiqueue-{stiqueue.__version__}.dist-info/"
    assert {name for name in names if not name.startswith(meta)} == sources("stiqueue/**/*.py*") | sources(
        "stiqueue/web/*/*.*"
    ) | {"stiqueue/py.typed"}
    assert {f"stiqueue/v1/{name}" for name in STUBS} | {meta + "licenses/LICENSE"} <= names
    assert "stiqueue-server = stiqueue.sqserver:main" in entry_points


@pytest.mark.slow
def test_the_sdist_has_the_protocol_and_the_tests_as_well(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = sources("stiqueue/**/*.py*") | sources("proto/**/*.proto") | sources("tests/**/*.py")
    assert wanted | {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "scripts/proto"} <= names


def install(directory: Path, package: str) -> None:
    """Make a virtual environment as `scripts/venv` does."""
    venv.create(directory, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(directory / "bin/python"), "install", "-q"]
    done = subprocess.run([*pip, "--disable-pip-version-check", package], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="names of paths")
def test_a_plain_install_brings_a_command_that_works(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    install(tmp_path, str(wheel))
    for command in (["stiqueue", "--help"], ["stiqueue", "serve", "--help"], ["stiqueue-server", "--help"]):
        words = [str(tmp_path / "bin" / command[0]), *command[1:]]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.lower().startswith("usage: ")
    console = [str(tmp_path / "bin/stiqueue"), "serve", "--web-port", "0"]
    done = subprocess.run(console, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"stiqueue: the console needs \w+: pip install 'stiqueue\[web\]'\n", done.stderr)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="names of paths")
def test_what_a_server_needs_is_light(built: Path, tmp_path: Path) -> None:
    found = re.search(r"--editable '\.(\[[a-z,]+\])'", (ROOT / "scripts/serve").read_text())
    assert found
    (wheel,) = built.glob("*.whl")
    install(tmp_path, f"{wheel}{found[1]}")
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink())
    assert size < SERVER_BYTES


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


def test_the_package_imports_neither_pytest_nor_grpc_nor_the_server() -> None:
    program = (
        "import stiqueue, sys; print({'pytest', 'grpc', 'stiqueue.sqserver', 'stiqueue.aio'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("module", ["stiqueue.sqserver", "stiqueue"])
@pytest.mark.parametrize("given", [None, "of the user"])
def test_a_server_process_chooses_how_grpc_polls_before_it_imports_grpc(module: str, given: str | None) -> None:
    program = f"""
import os, runpy, sys
from stiqueue import polling

def choose(choose=polling.let_callers_poll):
    choose()
    print("grpc" in sys.modules, os.environ["GRPC_EXPERIMENTS"])
    sys.exit(0)

polling.let_callers_poll = choose
sys.argv = ["x", "serve"][: 1 + ({module!r} == "stiqueue")]
runpy.run_module({module!r}, run_name="__main__")
"""
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    if given is not None:
        environment["GRPC_EXPERIMENTS"] = given
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == f"False {given or polling.EXPERIMENTS}\n"
