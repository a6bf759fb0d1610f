"""The tokenizer gives the ids, masks and texts of the 2022 one."""

import json
from pathlib import Path

import pytest

from models.errors import ConfigError, UnreadableFile
from models.tokenizer import SPECIAL_TOKENS, build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_special_tokens_have_the_ids_of_the_checkpoints(tokenizer, golden):
    facts = json.loads(golden("text/tokenizer_facts.json").read_text())
    assert len(tokenizer) == facts["size"]
    assert tokenizer.bos_token == facts["bos"]
    assert tokenizer.dec_token_id == tokenizer.bos_token_id == facts["bos_id"]
    assert tokenizer.enc_token_id == facts["enc_id"]
    assert [tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id] == [0, 101, 102]
    assert [tokenizer.unk_token_id, tokenizer.mask_token_id] == [100, 103]


def test_every_text_gives_the_recorded_ids(tokenizer, golden):
    cases = json.loads(golden("text/text_cases.json").read_text())
    assert len(cases) > 20
    for case in cases:
        padded = {"padding": "max_length", "truncation": True, "max_length": 35}
        raw = tokenizer(case["input"], **padded)
        assert (raw.input_ids, raw.attention_mask) == (case["ids_raw"], case["mask_raw"]), case["input"]
        cleaned = tokenizer(case["pre_caption_30"], **padded)
        assert (cleaned.input_ids, cleaned.attention_mask) == (case["ids_caption30"], case["mask_caption30"])
        assert tokenizer(case["input"]).input_ids[:200] == case["ids_raw_unpadded"]
        decoded = tokenizer.decode(case["ids_caption30"], skip_special_tokens=True)
        assert decoded == case["decoded_caption30"]


def test_a_vocabulary_of_ones_own(tmp_path: Path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "circle", "##s"]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(words) + "\n")
    tokenizer = build_tokenizer(path)
    assert len(tokenizer) == 10
    assert tokenizer("red circles").input_ids == [2, 5, 6, 7, 3]
    assert (tokenizer.dec_token_id, tokenizer.enc_token_id, tokenizer.pad_token_id) == (8, 9, 0)


def test_what_is_wrong_with_a_vocabulary_is_said(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"absent\.txt does not exist"):
        build_tokenizer(tmp_path / "absent.txt")
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\nred\n")
    with pytest.raises(ValueError, match=r"vocab\.txt lacks \[CLS\], \[SEP\], \[MASK\]"):
        build_tokenizer(path)


@pytest.mark.parametrize("content", [b"\xff\xfe[\x00", b"[PAD]\n\xe9\n"])
def test_a_vocabulary_that_is_no_utf8_is_named(tmp_path, content):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"vocab.txt is not UTF-8 text"):
        build_tokenizer(tmp_path / "vocab.txt")


def test_a_byte_order_mark_is_no_part_of_the_first_token(tmp_path):
    tokens = [*SPECIAL_TOKENS.values(), "cat"]
    (tmp_path / "vocab.txt").write_text("\ufeff" + "\n".join(tokens), encoding="utf-8")
    assert build_tokenizer(tmp_path / "vocab.txt").get_vocab()["[PAD]"] == 0


def test_a_folder_or_a_name_of_no_file_is_no_vocabulary(tmp_path):
    for name in (tmp_path, "x" * 300, "a\0b"):
        with pytest.raises(UnreadableFile):
            build_tokenizer(name)
