"""A mistake in a config ends the run with the place, the key and what is valid."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from engine.config import TrainConfig
from files import REPOSITORY
from settings import ConfigError, Settings, check, describe, find_config, load_config, save_config, setting


@dataclass
class Data(Settings):
    """Keys that a script mixes in, with a rule of their own."""

    train_file: str = setting("", "where the data is")
    batch_size: int = setting(8, "samples a step")

    def __post_init__(self) -> None:
        check(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        super().__post_init__()


@dataclass
class Config(TrainConfig, Data):
    """What a script has."""

    vit: str | dict[str, int] = setting("base", "which ViT")
    files: list[str] = setting(["a"], "which files")
    inference: Literal["rank", "generate"] = setting("rank", "how")


@pytest.fixture
def read(tmp_path):
    def read(text: str, *overrides: str, kind: type = Config, part: bool = False):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return load_config(kind, path, overrides, part=part)

    return read


def test_values_come_from_the_file_and_overrides_win(read):
    config = read("init_lr: 1e-5\nmax_epoch: 5\nvit: {embed_dim: 48, depth: 2}\n", "max_epoch=7", "files=[b, c]")
    assert (config.init_lr, config.max_epoch, config.vit) == (1e-5, 7, {"embed_dim": 48, "depth": 2})
    assert config.files == ["b", "c"]
    assert config.batch_size == 8


def test_nothing_after_the_equals_sign_is_an_empty_text(read):
    config = read("train_file: train.json", "train_file=", "wandb=")
    assert (config.train_file, config.wandb) == ("", None)


def test_yaml_1_2_reads_numbers_and_words_as_people_mean_them(read):
    assert read("init_lr: 1e-5").init_lr == 1e-5
    assert read("train_file: no").train_file == "no"
    assert read("compile: True").compile is True
    assert read("min_lr: 0").min_lr == 0.0
    assert read("clip_grad_norm: null").clip_grad_norm is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_epoch: 3\nbatchsize: 2\n", "line 2: unknown key 'batchsize'; the nearest valid key is 'batch_size'"),
        ("max_epoch: 3\n12: 2\n", "line 2: unknown key 12; the nearest valid key is"),
        ("\n\nmax_epoch: 3.5\n", "line 3: max_epoch is 3.5 (a number), expected a whole number"),
        ("init_lr: fast", "line 1: init_lr is 'fast' (text), expected a number"),
        ("compile: yes", "compile is 'yes' (text), expected true or false"),
        ("batch_size: true", "batch_size is True (true or false), expected a whole number"),
        ("files: a.json", "files is 'a.json' (text), expected a list of text"),
        ("vit: 12", "vit is 12 (a whole number), expected text or a mapping"),
        ("inference: rang", "inference is 'rang' (text), expected rank | generate"),
        ("max_epoch: 0", "line 1: max_epoch = 0: must be at least 1"),
        ("min_lr: 1.0", "line 1: min_lr = 1.0: must be from 0 to init_lr = 1e-05"),
        ("max_epoch: 2\nbatch_size: 0", "line 2: batch_size = 0: must be at least 1"),
        ("a: [1\nb: 2", "not valid YAML"),
        ("max_epoch: 1\nmax_epoch: 2", "not valid YAML"),
        ("max_epoch: 1\n? [a, b]\n: 2", "unknown key ('a', 'b')"),
        ("wandb: '\x01'", "not valid YAML"),
        ("- 1\n- 2", "expected `key: value` lines, found a list"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(read, text, message):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert message in str(caught.value)
    assert "config.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("max_epochs=3", "command line: unknown key 'max_epochs'; the nearest valid key is 'max_epoch'"),
        ("max_epoch=x", "command line: max_epoch is 'x' (text), expected a whole number"),
        ("max_epoch=-1", "command line: max_epoch = -1: must be at least 1"),
        ("max_epoch", "'max_epoch' is no override: write key=value"),
        ("files=[a", "'files=[a': not valid YAML"),
    ],
)
def test_a_mistake_in_an_override_is_named(read, override, message):
    with pytest.raises(ConfigError) as caught:
        read("max_epoch: 1", override)
    assert message in str(caught.value)


def test_a_part_of_a_config_is_read_without_the_keys_of_the_others(read):
    data = read("max_epoch: 3\nbatch_size: 2\nvit: {embed_dim: wide}\n", kind=Data, part=True)
    assert data == Data(batch_size=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_epoch: 3\nbatch_sizes: 2", "line 2: unknown key 'batch_sizes'; the nearest valid key is 'batch_size'"),
        ("max_epoch: 3\nbatch_size: x", "line 2: batch_size is 'x' (text), expected a whole number"),
        ("max_epoch: 3\nbatch_size: 0", "line 2: batch_size = 0: must be at least 1"),
    ],
)
def test_a_mistake_in_a_part_is_named_with_its_place(read, text, message):
    with pytest.raises(ConfigError, match="config.yaml ") as caught:
        read(text, kind=Data, part=True)
    assert message in str(caught.value)


def test_a_key_without_default_must_be_given(read):
    @dataclass
    class Strict:
        root: str = setting(..., "where")

    with pytest.raises(ConfigError, match="missing root"):
        read("", kind=Strict)
    assert read("root: here", kind=Strict).root == "here"


def test_a_missing_file_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match="nowhere.yaml: no such config file"):
        load_config(Config, "nowhere.yaml")


def test_a_name_that_differs_in_case_alone_is_found_and_logged(tmp_path, monkeypatch, caplog):
    (tmp_path / "retrieval_coco.yaml").write_text("batch_size: 3")
    (tmp_path / "retrieval_coco.yml").write_text("batch_size: 4")
    with caplog.at_level("INFO", "blip.settings"):
        assert load_config(Config, tmp_path / "Retrieval_COCO.yaml").batch_size == 3
    assert f"reading {tmp_path / 'retrieval_coco.yaml'}" in caplog.text
    caplog.clear()
    (tmp_path / "configs").mkdir()
    monkeypatch.chdir(tmp_path)  # its own `configs` hides that of the repository no more than for an exact name
    assert find_config("./configs/Pretrain.yaml") == REPOSITORY / "configs/pretrain.yaml"
    (tmp_path / "configs/pretrain.yaml").touch()
    assert find_config("./configs/Pretrain.yaml") == Path("configs/pretrain.yaml")


def test_the_exact_name_wins_and_several_that_differ_in_case_are_an_error(tmp_path, caplog):
    for name, size in (("pretrain.yaml", 1), ("PRETRAIN.yaml", 2)):
        (tmp_path / name).write_text(f"batch_size: {size}")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system does not tell upper from lower case")
    assert load_config(Config, tmp_path / "PRETRAIN.yaml").batch_size == 2
    assert not caplog.text
    with pytest.raises(ConfigError, match="in case alone: PRETRAIN.yaml, pretrain.yaml"):
        load_config(Config, tmp_path / "Pretrain.yaml")


def test_what_is_saved_reads_back_as_the_same_config(read, tmp_path):
    config = read("init_lr: 3e-4\nvit: {depth: 2}\nfiles: []\n")
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(Config, tmp_path / "saved.yaml") == config


def test_help_lists_each_key_with_type_default_and_meaning():
    text = describe(Config)
    assert "batch_size: a whole number [8]\n      samples a step" in text
    assert "inference: rank | generate [rank]\n      how" in text
    assert "clip_grad_norm: a number or null [null]" in text
    assert "train_file: text ['']" in text


def test_paths_are_a_type(read):
    @dataclass
    class Places:
        root: Path = setting(Path("here"), "where")

    assert read("root: there", kind=Places).root == Path("there")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_epoch: 2\nmax_epoch: !!int x", "config.yaml line 2: "),
        ("init_lr: 1\nmax_epoch: !!int x", "config.yaml line 2: a value cannot be read"),
        ("max_epoch: !!bool maybe", "config.yaml line 1: a value cannot be read"),
        ("train_file: 2021-13-45", "config.yaml line 1: a value cannot be read"),
        ("train_file: 2021-11-30", "train_file is datetime.date"),
        ("max_epoch: " + 5000 * "9", "config.yaml line 1: a value cannot be read"),
        ("max_epoch: " + 40 * "9", "config.yaml line 1: max_epoch is larger than 9,223"),
        ("init_lr: " + 400 * "9", "config.yaml line 1: init_lr is larger than"),
        ("files: " + 3000 * "[" + 3000 * "]", "values are nested too deeply"),
        ("files: " + 40 * "[" + 40 * "]", "values are nested too deeply"),
        ("files: &a [*a]", "values are nested too deeply"),
        (BOMB, "more than 100,000 of them"),
        ("<<: 3", "line 1: not valid YAML"),
        ("<<: {max_epochs: 3}", "unknown key 'max_epochs'"),
        ("[a, b]: 3", "unknown key"),
        ("{a: 1}: 3", "line 1: not valid YAML"),
        ("1: 3", "unknown key 1"),
        ("null: 3", "unknown key None"),
        ("train_file: a\x07b", "not valid YAML: unacceptable character #x0007"),
        ('train_file: "a\\0b"', "config.yaml line 1: train_file = .* holds a NUL character"),
        ('train_file: "\\ud800"', "config.yaml line 1: train_file = .* is not Unicode"),
        ('files: ["\\ud800"]', "config.yaml line 1: files = .* is not Unicode"),
        ("max_epoch: 1\n---\nmax_epoch: 2", "line 2: not valid YAML"),
        ("%YAML 9.9\n---\nmax_epoch: 1", "not valid YAML"),
        ("max_epoch: !!python/name:os.system", "line 1: not valid YAML"),
        ("just words", "expected `key: value` lines, found text"),
        ("train_file: [" + 500 * "a," + "a]", r"train_file is \['a', .*\.\.\. \(a list\), expected text$"),
    ],
)
def test_odd_yaml_ends_with_the_file_and_what_is_odd(read, text, message):
    with pytest.raises(ConfigError, match=message) as refused:
        read(text)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("text", ["!!int x", "2021-13-45", 5000 * "9", 3000 * "[", "&a [*a]", "a\x07", "[", "'a"])
def test_odd_yaml_in_an_override_is_the_command_lines(read, text):
    with pytest.raises(ConfigError, match="^command line: "):
        read("", f"max_epoch={text}")


def test_anchors_and_merge_keys_are_read(read):
    config = read("<<: {max_epoch: 3}\nvit: &v {embed_dim: 8}\nfiles: &f [a]\n")
    assert (config.max_epoch, config.vit, config.files) == (3, {"embed_dim": 8}, ["a"])


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    (tmp_path / "c.yaml").write_bytes("\ufeffmax_epoch: 3".encode())
    assert load_config(Config, tmp_path / "c.yaml").max_epoch == 3


def test_what_is_no_text_file_is_no_config(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"train_file: \xe9")
    (tmp_path / "large.yaml").write_bytes(b"#" * (2 << 20))
    os.mkfifo(tmp_path / "pipe.yaml")
    for name, message in (
        ("latin.yaml", "latin.yaml: cannot be read"),
        ("large.yaml", "large.yaml: more than 1,048,576 characters"),
        ("pipe.yaml", "pipe.yaml: cannot be read \\(a named pipe, not a file"),
        (".", "cannot be read \\(a folder, not a file"),
        ("x" * 300, "cannot be read \\(File name too long"),
        ("a\0b", "cannot be read \\(not a file name"),
        ("nothing.yaml", "no such config file"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(Config, tmp_path / name)
    for name in ("~nosuchuser/config.yaml", "x" * 300 + "/a.yaml"):
        with pytest.raises(ConfigError, match="no such config file|cannot be read"):
            load_config(Config, name)


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan", ".Inf", ".NAN", "1e999"])
@pytest.mark.parametrize("where", ["init_lr: {}", "vit: {{depth: {}}}", "files: [{}]"])
def test_no_key_takes_a_number_that_is_infinite_or_none(read, number, where):
    with pytest.raises(ConfigError, match=r"config\.yaml line 1: \w+ is "):
        read(where.format(number))
    with pytest.raises(ConfigError, match=r"^command line: init_lr is -?(inf|nan), which is no number to work with"):
        read("", f"init_lr={number}")
