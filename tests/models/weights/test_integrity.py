"""No change of a file that was written here, or downloaded, passes for what was written."""

import os
import subprocess
import zipfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from models.weights.digest import file_digest, keep_digest
from models.weights.files import read_state
from models.weights.integrity import CheckpointError, DamagedFile, save_safetensors, verify_tensors, verify_zip


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    torch.save({"model": {f"layer.{i}": torch.randn(3, 7) for i in range(4)}, "step": 3}, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def accepted(path):
    """What is read of a file that passes the check; None where it does not, or where torch itself refuses it."""
    try:
        verify_zip(path)
        return torch.load(path, weights_only=True)
    except Exception:  # torch's are of many kinds
        return None


@pytest.mark.filterwarnings("ignore")
def test_whichever_bit_of_a_file_flips_other_values_are_never_accepted(file):
    written, content = accepted(file), file.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        file.write_bytes(flipped)
        read = accepted(file)
        if read is not None:
            assert read["step"] == 3, place
            assert all(torch.equal(read["model"][key], written["model"][key]) for key in written["model"]), place


def test_the_damaged_record_is_named(file):
    content = bytearray(file.read_bytes())
    values = torch.load(file, weights_only=True)["model"]["layer.2"].numpy().tobytes()
    content[content.index(values) + 5] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"weights.pth is damaged: its record 'weights/data/2' is not what was"):
        verify_zip(file)


@pytest.mark.parametrize("length", [0, 1, 100, 1500, -1])
def test_a_file_that_was_cut_off_is_damaged(file, length):
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(DamagedFile, match="weights.pth is damaged or cut off"):
        verify_zip(file)


def test_a_packed_zip_which_torch_would_misread_is_damaged(file, tmp_path):
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(tmp_path / "p.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in source.namelist():
            packed.writestr(name, source.read(name))
    with pytest.raises(DamagedFile, match="data.pkl"):
        verify_zip(tmp_path / "p.pth")


def test_a_missing_file_is_an_error_of_its_own(tmp_path):
    with pytest.raises(FileNotFoundError):
        verify_zip(tmp_path / "nowhere.pth")


# Safetensors that are written here


def tensors():
    torch.manual_seed(0)
    floats = {f"layer.{i}": torch.randn(3, 7) for i in range(3)}
    others = {
        "half": torch.randn(4).bfloat16(),
        "flags": torch.ones(3).bool(),
        "none": torch.ones(0),
        "one": torch.ones(()),
    }
    return floats | others


def read_own(path):
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118 (no mapping)


def test_what_is_written_holds_and_other_programs_read_it(tmp_path):
    save_safetensors(tensors(), tmp_path / "a.safetensors", {"format": "pt"})
    read, metadata = read_own(tmp_path / "a.safetensors")
    assert metadata["format"] == "pt"
    assert verify_tensors(tmp_path / "a.safetensors", read, metadata)
    assert all(torch.equal(read[key], tensor) for key, tensor in tensors().items())


def test_a_changed_tensor_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    save_safetensors(tensors(), path, {})
    content = bytearray(path.read_bytes())
    content[content.index(tensors()["layer.1"].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"a.safetensors is damaged: its tensor layer.1 is not what was written"):
        read_state(path)


@pytest.mark.parametrize("change", [{"layer.0": torch.ones(7, 3)}, {"layer.0": None}, {"more": torch.ones(1)}])
def test_another_shape_or_name_is_a_change_too(tmp_path, change):
    path = tmp_path / "a.safetensors"
    save_safetensors(tensors(), path, {})
    metadata = read_own(path)[1]
    changed = {key: tensor for key, tensor in (tensors() | change).items() if tensor is not None}
    save_file(changed, path, metadata)
    with pytest.raises(DamagedFile, match=f"its tensor {next(iter(change))} is not what was written"):
        read_state(path)


CHECKPOINT = {"architecture": {"vocabulary": ["one", "zwölf"]}, "config": {"prompt": "a picture of "}}


def test_what_a_checkpoint_holds_beside_its_weights_is_read_back(tmp_path):
    save_safetensors(tensors(), tmp_path / "a.safetensors", {"format": "pt"}, CHECKPOINT)
    state, metadata = read_state(tmp_path / "a.safetensors")
    assert metadata == CHECKPOINT
    assert all(torch.equal(state[key], tensor) for key, tensor in tensors().items())


def test_the_same_content_is_the_same_bytes(tmp_path):
    files = [tmp_path / f"{number}.safetensors" for number in range(12)]
    for file in files:  # by the library alone, the order of three keys is another each time
        save_safetensors(tensors(), file, {"format": "pt"}, CHECKPOINT)
    assert len({file.read_bytes() for file in files}) == 1


def test_a_changed_word_beside_the_tensors_is_found(tmp_path):
    path = tmp_path / "a.safetensors"
    save_safetensors(tensors(), path, {}, CHECKPOINT)
    path.write_bytes(path.read_bytes().replace(b"a picture of", b"a picture on"))
    with pytest.raises(DamagedFile, match="its blip_checkpoint is not what was written"):
        read_state(path)


@pytest.mark.parametrize(("held", "reason"), [("[1]", "is a list, not an object"), ("{", "is not JSON")])
def test_what_stands_beside_the_tensors_may_be_anything_in_files_of_others(tmp_path, held, reason):
    save_file(tensors(), tmp_path / "a.safetensors", {"blip_checkpoint": held})
    with pytest.raises(CheckpointError, match=reason):
        read_state(tmp_path / "a.safetensors")


def test_files_of_other_programs_are_read_as_they_are(tmp_path):
    save_file(tensors(), tmp_path / "a.safetensors", {"format": "pt"})
    assert verify_tensors(tmp_path / "a.safetensors", tensors(), {"format": "pt"}) is False
    assert read_state(tmp_path / "a.safetensors")[0].keys() == tensors().keys()


def test_a_zip_without_checksums_is_read_as_it_is(file):
    options = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"model": {"a": torch.ones(3)}}, file)
    finally:
        torch.serialization.set_crc32_options(options)
    assert verify_zip(file) is False
    assert read_state(file)[0]["a"].tolist() == [1, 1, 1]


# The digest beside a file


@pytest.fixture
def old(tmp_path):
    """A file of the format without checksums, with its digest beside it."""
    torch.save({"model": {"a": torch.arange(100.0)}}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    keep_digest(tmp_path / "w.pth", file_digest(tmp_path / "w.pth"))
    return tmp_path / "w.pth"


def flip(path, place=-50):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_the_digest_has_the_form_of_sha256sum(old):
    assert subprocess.run(["sha256sum", "-c", "w.pth.sha256"], cwd=old.parent, check=False).returncode == 0


def test_a_flipped_bit_is_found_by_the_digest(old):
    flip(old)
    with pytest.raises(DamagedFile, match=r"w.pth is damaged, or was replaced: its SHA-256 is .*w.pth.sha256 says"):
        read_state(old)


ODD_DIGESTS = [b"", b"\xff\x00", b"none", b"0" * 64 + b"  other.pth\n", b"0" * 63, b"\n" * 1000, b"[" * 5000]


@pytest.mark.parametrize("content", ODD_DIGESTS, ids=range(7))
def test_an_odd_digest_is_none(old, content):
    beside = old.with_name("w.pth.sha256")
    beside.write_bytes(content)
    assert read_state(old)[0]["a"][99] == 99
    beside.unlink()
    os.mkfifo(beside)
    assert read_state(old)[0]["a"][99] == 99
    beside.unlink()
    beside.mkdir()
    assert read_state(old)[0]["a"][99] == 99


def test_of_several_digests_that_of_the_file_is_taken(old):
    beside = old.with_name("w.pth.sha256")
    beside.write_text(f"{'0' * 64}  other.pth\r\n{file_digest(old).upper()} *w.pth\r\n")
    assert read_state(old)[0]["a"][99] == 99
    flip(old)
    with pytest.raises(DamagedFile):
        read_state(old)


def test_a_file_that_checks_itself_does_not_need_its_digest(file):
    keep_digest(file, "0" * 64)
    assert read_state(file)[0].keys() == {f"layer.{i}" for i in range(4)}


def test_a_damaged_download_is_to_be_deleted(old, monkeypatch):
    flip(old)
    with pytest.raises(DamagedFile) as caught:
        read_state(old)
    assert "Delete" not in str(caught.value)
    monkeypatch.setenv("BLIP_CACHE", str(old.parent))
    with pytest.raises(DamagedFile, match=r"Delete .*w.pth and run again: it is then downloaded anew"):
        read_state(old)


def test_the_hubs_cache_names_files_by_their_digests(tmp_path):
    save_file(tensors(), tmp_path / "model.safetensors")
    blob = tmp_path / "blobs" / file_digest(tmp_path / "model.safetensors")
    blob.parent.mkdir()
    (tmp_path / "model.safetensors").rename(blob)
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.safetensors").symlink_to(blob)
    assert read_state(tmp_path / "snapshot")[0].keys() == tensors().keys()
    flip(blob, -3)
    with pytest.raises(DamagedFile, match=rf"Delete .*blobs/{blob.name} and run again"):
        read_state(tmp_path / "snapshot")
