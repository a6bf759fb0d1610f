"""No change of a file that torch.save wrote passes for what was written."""

import zipfile

import pytest
import torch

from models.weights.integrity import DamagedFile, verify_zip


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
