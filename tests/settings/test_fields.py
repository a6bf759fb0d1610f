"""Documented fields of a config, and rules."""

import dataclasses

import pytest

from settings import UserError, check, setting


def test_a_setting_carries_its_meaning_and_copies_a_list():
    @dataclasses.dataclass
    class Config:
        files: list[str] = setting(["a"], "files to read")
        root: str = setting(..., "where they lie")

    first, second = Config(root="x"), Config(root="x")
    first.files.append("b")
    assert second.files == ["a"]
    assert dataclasses.fields(Config)[0].metadata["help"] == "files to read"
    with pytest.raises(TypeError, match="root"):
        Config()


def test_a_rule_that_does_not_hold_is_an_error_for_the_reader():
    check(True, "k", 1, "at least 1")
    with pytest.raises(UserError, match="k = 0: must be at least 1"):
        check(False, "k", 0, "at least 1")
