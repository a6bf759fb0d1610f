import pytest

from models.errors import one_line


@pytest.mark.parametrize("length", [201, 2_001, 1_000_000])
def test_a_long_text_is_shown_by_its_beginning_and_its_end(length):
    text = "begin" + "x" * (length - 8) + "end"
    shown = one_line(text)
    assert (shown[:6], shown[100:103], shown[-4:]) == ("beginx", "...", "xend")
    assert len(shown) == 203


def test_a_text_stays_on_its_line():
    assert one_line("a\x1b[31m\nb") == "a\\x1b[31m\\nb"
