"""Files of others: every limit from both sides."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqprune import plain
from seqprune.plain import (
    UnreadableError,
    check_plain,
    is_name,
    is_number,
    is_whole,
    json_of,
    on_a_page,
    printable,
    text_of,
    why_no_file,
    yaml_of,
)


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def test_printable_text_is_one_line_of_so_many_characters() -> None:
    assert printable("abc", 3) == "abc"
    assert printable("abcd", 3) == "ab…"
    assert printable("a" * 400) == "a" * 400
    assert printable("a" * 401) == "a" * 399 + "…"
    assert printable("a\tb\nc\x1b[2J\u202e") == "a b c\ufffd[2J\ufffd"
    assert printable(12) == "12"
    assert on_a_page("<a href='x'>\n&") == "&lt;a href=&#x27;x&#x27;&gt; &amp;"
    assert len(on_a_page("a" * 100_001)) == 100_000


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert why_no_file(file) == ""
    assert why_no_file(tmp_path) == "is a folder, not a file"
    assert why_no_file(tmp_path / "nothere") == "no such file"
    assert why_no_file("/dev/null") == "is a device, not a file"
    assert why_no_file(file / "below").startswith("cannot be read (")
    assert why_no_file("a\0b").startswith("cannot be read (")
    os.mkfifo(tmp_path / "pipe")
    assert why_no_file(tmp_path / "pipe") == "is a named pipe, not a file"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "s"))
        assert why_no_file(tmp_path / "s") == "is a socket, not a file"


def test_text_has_an_end(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes("\ufeffäb".encode())
    assert text_of(file) == "äb"
    assert text_of(file, limit=6) == "äb"
    with pytest.raises(UnreadableError, match="longer than 0 MiB"):
        text_of(file, limit=5)
    file.write_bytes(b"\xff")
    with pytest.raises(UnreadableError, match="is no text"):
        text_of(file)
    with pytest.raises(UnreadableError, match="no such file"):
        text_of(tmp_path / "nothere")
    file.write_bytes(b"x" * ((2 << 20) + 1))
    with pytest.raises(UnreadableError, match="longer than 2 MiB"):
        text_of(file, limit=2 << 20)


@pytest.mark.parametrize("read", [json_of, yaml_of])
@pytest.mark.parametrize(
    ("text", "found"),
    [("[1, 2.5, null, true]", [1, 2.5, None, True]), ('{"a": {"b": []}}', {"a": {"b": []}}), (str(2**53), 2**53)],
)
def test_what_is_plain_is_read(read: Callable[[str], Any], text: str, found: Any) -> None:
    assert read(text) == found


@pytest.mark.parametrize("read", [json_of, yaml_of])
@pytest.mark.parametrize("text", [str(2**53 + 1), str(-(2**53) - 1), "[" * 40 + "]" * 40, "{", "[" * 100_000])
def test_what_is_not_is_refused(read: Callable[[str], Any], text: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        read(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["Infinity", "NaN", "-Infinity", "1e999", "[1e999]"])
def test_json_has_no_endless_numbers(text: str) -> None:
    with pytest.raises(UnreadableError, match=r"inf|no number of JSON"):
        json_of(text)


def test_depth_and_number_of_values() -> None:
    check_plain(nested(32))
    with pytest.raises(UnreadableError, match="nested without end"):
        check_plain(nested(33))
    check_plain([0] * 1_999_999)
    with pytest.raises(UnreadableError, match="too many values"):
        check_plain([0] * 2_000_000)
    check_plain({"a": (1, {"b": -(2**53)})})
    check_plain({"a": nested(31)})
    with pytest.raises(UnreadableError, match="nested without end"):
        check_plain({"a": nested(32)})
    for endless in (float("inf"), float("-inf"), float("nan")):
        with pytest.raises(UnreadableError, match="holds the number"):
            check_plain({"a": endless})
    with pytest.raises(UnreadableError, match="beyond all counts"):
        check_plain((2**53 + 1,))
    with pytest.raises(UnreadableError, match="holds the number"):
        check_plain({float("nan"): 1})


def test_yaml_without_anchors_of_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert yaml_of("# " + "x" * (2**20 - 2)) is None
    with pytest.raises(UnreadableError, match="longer than 1 MiB"):
        yaml_of("# " + "x" * (2**20 - 1))
    with pytest.raises(UnreadableError, match="repeats a part of itself"):
        yaml_of("a: &x [1]\nb: *x")
    assert yaml_of("x" * 4096) == "x" * 4096
    with pytest.raises(UnreadableError, match="one of too many characters"):
        yaml_of("x" * 4097)
    assert str(yaml_of("[" * 32 + "]" * 32)) == "[" * 32 + "]" * 32
    with pytest.raises(UnreadableError, match="nested without end"):
        yaml_of("[" * 33 + "]" * 33)
    assert len(yaml_of("[" + "[],\n" * 40 + "]")) == 40  # beside each other, not in each other
    with pytest.raises(UnreadableError):
        yaml_of("a: 2001-99-99")
    with pytest.raises(UnreadableError):
        yaml_of("!!python/object/apply:os.getcwd []")
    monkeypatch.setattr(plain, "_EVENTS", 7)
    assert yaml_of("[1, 2]") == [1, 2]  # beside two values the stream, the document and the list begin and end
    with pytest.raises(UnreadableError, match="too many values"):
        yaml_of("[1, 2, 3]")


def test_numbers_and_names_within_bounds() -> None:
    assert [is_whole(value, 1, 3) for value in (0, 1, 3, 4, 2.0, True, "2", None)] == [False, True, True, *[False] * 5]
    numbers = (0.5, 1, 1.5, 3, 3.5, True, "2", float("nan"), float("inf"))
    assert [is_number(value, 1, 3) for value in numbers] == [False, True, True, True, *[False] * 5]
    assert [is_name(value, 3) for value in ("", "abc", "abcd", "a\n", 3, b"ab")] == [True, True, *[False] * 4]
    assert is_name("a" * 500)
    assert not is_name("a" * 501)
