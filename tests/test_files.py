import dataclasses
import errno
import json
import math
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from attnlab.errors import UserError
from attnlab.files import atomic, check_file, check_folder, write_bytes, write_json, write_jsonl, write_text


def test_written_as_given(tmp_path):
    write_text(tmp_path / "a.txt", "Straße ʃjɛ̃\r\n\n")
    assert (tmp_path / "a.txt").read_bytes() == "Straße ʃjɛ̃\r\n\n".encode()
    write_bytes(tmp_path / "deep" / "er" / "b", b"\x00\xff")
    assert (tmp_path / "deep" / "er" / "b").read_bytes() == b"\x00\xff"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, FileNotFoundError])
def test_a_writer_that_raises_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write():
        with atomic(path) as file:
            file.write("half of the n")
            file.flush()
            assert path.read_text() == "old"
            raise failure

    with pytest.raises(failure):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_the_new_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new"
    with atomic(path, "wb") as file:
        file.write(b"1")
        assert not path.exists()
    assert path.read_bytes() == b"1"


def test_the_data_reaches_the_disk_before_the_name_does(tmp_path, monkeypatch):
    path, calls = tmp_path / "a", []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda *a: (calls.append("fsync"), fsync(*a)))
    monkeypatch.setattr(os, "replace", lambda *a: (calls.append("replace"), replace(*a)))
    write_text(path, "x")
    assert calls == ["fsync", "replace"]


def test_a_full_disk_is_the_users_to_mend(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"a\.txt: No space left on device\. Free some space there"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_disk_that_fills_during_the_write(tmp_path):
    with pytest.raises(UserError, match="No space left"), atomic(tmp_path / "a") as _:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_directory_in_the_way_and_a_file_for_a_directory(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}: Is a directory. Choose a place"):
        write_text(tmp_path, "x")
    write_text(tmp_path / "file", "x")
    for name in ("a", "a/b"):
        with pytest.raises(UserError, match=f"file/{name}: .*/file is a file, not a folder. Choose a place"):
            write_text(tmp_path / "file" / name, "x")
    assert os.listdir(tmp_path) == ["file"]


def test_a_place_is_checked_before_the_work_and_left_as_it_is(tmp_path):
    write_text(tmp_path / "file", "x")
    for place in (tmp_path / "file", tmp_path / "new", tmp_path / "deep" / "er"):
        check_file(place)
    for place in (tmp_path, tmp_path / "deep" / "er"):
        check_folder(place)
    for check, place in ((check_file, tmp_path), (check_file, tmp_path / "file" / "a"), (check_folder, "/proc/a")):
        with pytest.raises(UserError, match=f"Cannot write {place}: .*Choose a place"):
            check(place)
    with pytest.raises(UserError, match="is a file, not a folder"):
        check_folder(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "x"


def test_other_modes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'a'"), atomic(tmp_path / "a", "a"):
        pass


def test_a_link_stays_a_link_and_the_umask_holds(tmp_path):
    write_text(tmp_path / "target", "old")
    (tmp_path / "link").symlink_to("target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "shared", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o640


def _strict(text):
    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_json_is_valid_and_plain(tmp_path):
    @dataclasses.dataclass
    class Point:
        x: float
        y: object

    write_json(
        tmp_path / "a.json",
        {
            "z": math.nan,
            "a": [math.inf, -math.inf, np.float64("nan"), np.float32("inf"), torch.tensor(math.nan)],
            "numpy": (np.float32(0.5), np.int64(3), np.bool_(True), np.arange(4).reshape(2, 2), np.str_("s")),
            "torch": [torch.tensor(2), torch.tensor([0.5, 1], dtype=torch.bfloat16, requires_grad=True)],
            "point": Point(1.0, Path("a/b")),
            3: None,
            "ü": "ʃ",
        },
    )
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    value = _strict(text)
    assert list(value) == ["z", "a", "numpy", "torch", "point", "3", "ü"]
    assert value["z"] is None
    assert value["a"] == [None] * 5
    assert value["numpy"] == [0.5, 3, True, [[0, 1], [2, 3]], "s"]
    assert value["numpy"][2] is True
    assert value["torch"] == [2, [0.5, 1.0]]
    assert value["point"] == {"x": 1.0, "y": "a/b"}
    assert '\n  "ü": "ʃ"' in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, np.complex64(1j), {(1, 2): 3}, {math.nan: 1}, b"x"])
def test_what_json_cannot_hold_is_an_error_and_writes_nothing(tmp_path, value):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"value": value})
    assert os.listdir(tmp_path) == []


def test_jsonl_has_one_row_a_line_whatever_is_in_it(tmp_path):
    rows = [{"text": "a\nb\x85c\u2028d\u2029e\x1ef"}, {"text": "\udcff lone"}, {"loss": math.nan}]
    write_jsonl(tmp_path / "a.jsonl", (row for row in rows))
    lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()
    assert [_strict(line) for line in lines] == [*rows[:2], {"loss": None}]


def test_rows_that_fail_midway_leave_the_old_file(tmp_path):
    def rows():
        yield 1
        raise RuntimeError("midway")

    write_jsonl(tmp_path / "a", [0])
    with pytest.raises(RuntimeError, match="midway"):
        write_jsonl(tmp_path / "a", rows())
    assert (tmp_path / "a").read_text() == "0\n"
