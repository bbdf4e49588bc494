"""The package as users install it, its types, and the size of its files."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import parley_chat

PACKAGE = Path(__file__).resolve().parents[1]
SECONDS = 300
LINES_MAX = 300


def run(*command: str | Path, folder: Path = PACKAGE) -> str:
    """Runs a program that has to succeed, and returns its output."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_mypy_accepts_sources_tests_and_examples() -> None:
    run(sys.executable, "-m", "mypy")


def test_wheel_installs_into_a_new_environment(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "parley_chat/py.typed" in names
    assert {Path(name).name for name in names if "/licenses/" in name} == {"LICENSE-MIT", "LICENSE-APACHE"}
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel)
    code = "import importlib.metadata as m, parley_chat; print(m.version('parley-chat'), *parley_chat.__all__)"
    assert run(python, "-c", code, folder=tmp_path).split() == ["0.1.0", *parley_chat.__all__]


def test_source_files_stay_below_their_limit() -> None:
    sources = [*PACKAGE.glob("src/**/*.py"), *PACKAGE.glob("tests/*.py"), *PACKAGE.glob("../examples/**/*.py")]
    assert len(sources) > 20
    lines = {source.name: len(source.read_text().splitlines()) for source in sources}
    assert {name: count for name, count in lines.items() if count > LINES_MAX} == {}


def test_state_machine_imports_no_surroundings() -> None:
    connection = ("session", "connection", "user_token", "deadlines", "calls", "requests", "replies")
    for name in (*connection, "rooms", "stream", "members", "effects", "events", "errors", "packed"):
        text = (PACKAGE / "src" / "parley_chat" / f"{name}.py").read_text()
        for module in ("asyncio", "time", "random", "secrets", "websockets", "socket", "engine", "link"):
            assert f"import {module}" not in text and f"from .{module}" not in text, f"{name} imports {module}"
