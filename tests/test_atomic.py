"""A file is the old one or the new one, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seqprune.atomic import atomic, held, write_text

ENDLESS = """
import sys
from seqprune.atomic import atomic, write_text
path = sys.argv[1]
write_text(path, "0" * 1_000_000)
print("begun", flush=True)
for number in range(10**9):
    write_text(path, str(number % 10) * 1_000_000)
"""


def test_a_new_file_and_one_in_the_place_of_another(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    for text in ("one", "zwölf"):
        write_text(file, text)
        assert file.read_bytes().decode() == text
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]


def test_its_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_writing_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """A full disk left half of a report where the whole one had been."""
    file = tmp_path / "report.json"
    write_text(file, "old")

    def fails() -> None:
        with atomic(file) as temporary:
            temporary.write_text("hal")
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        fails()
    assert file.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "nowhere" / "plan.json", "")


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
@pytest.mark.parametrize("moment", [0.0, 0.01, 0.03])
def test_a_process_that_is_killed_leaves_a_whole_file(tmp_path: Path, moment: float) -> None:
    file = tmp_path / "report.json"
    command = [sys.executable, "-c", ENDLESS, str(file)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert writer.stdout is not None
    with writer, writer.stdout:
        assert writer.stdout.readline() == "begun\n"
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(moment)
        writer.send_signal(signal.SIGKILL)
    text = file.read_text()
    assert len(text) == 1_000_000
    assert len(set(text)) == 1


HOLDS = """
import sys
from seqprune.atomic import held
with held(sys.argv[1]) as alone:
    print(alone, flush=True)
    sys.stdin.read()
"""


def test_one_process_holds_a_file_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.touch()
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"True\n"
    with held(file) as alone:
        assert not alone
    holder.kill()
    holder.communicate()
    with held(file) as alone:
        assert alone
        with held(file) as twice:
            assert not twice
    with held(file) as alone:
        assert alone


def test_a_file_that_is_not_there_is_held_by_nobody(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothere"), held(tmp_path / "nothere"):
        pass
