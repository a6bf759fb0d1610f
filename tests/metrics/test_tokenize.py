"""The Penn Treebank tokenizer without Java: the strings below are what Java makes, and where Java is, it is asked."""

import random
import shutil
from pathlib import Path

import pytest

from metrics.java import java_tokenize
from metrics.tokenize import ptb_tokenize

# Awkward captions and what Java makes of them, a pair a line.
AWKWARD = [line.split("\t") for line in Path(__file__).with_name("ptb_captions.tsv").read_text("utf-8").splitlines()]
PLAIN = "man woman dog cats train bus pizza teddy kitchen zebra stop-sign a the on next to with"
ODD = """
    red black-and-white two-story 3-year-old 1950's '50s half-eaten double-decker 100% $5 #1 747 A380 AT&T 3D it's
    isn't cannot they're man's dogs' 'Stop' "STOP" (left) [sic] w/ and/or he/she 10:30 10:30am p.m. 1/2 1,000 3.5 2-3
    o'clock gonna 'em 'til etc. e.g. vs. & @ #7 50% £5 €10 ... … -- - – — ! ? ?! : :) <3 * / flickr.com café don’t
    “hello” ‘hi’ 45° ½ T-shirt no. 5 No. Ave. Jan. 1st. 42nd PM ma'am y'all 5ft. in. I. A. B U.S.A. a.k.a. TV's CDs'
    12/25/2009 9/11 555-1234 mother-in-law's bus,car end.The dog, 😀 ™ cat's. "quoted." 'quoted,' n't 4x4 Wal-Mart Co.
    jr. dept. ft. St. Dr. U.S. T.V.
"""


@pytest.mark.parametrize(("caption", "tokens"), AWKWARD)
def test_a_caption_becomes_the_tokens_that_java_makes(caption: str, tokens: str) -> None:
    assert ptb_tokenize([caption]) == [tokens]


def test_captions_keep_their_order_and_number() -> None:
    assert ptb_tokenize(["A dog.", "", " ", "two\nlines\u2028here", "?"]) == ["a dog", "", "", "two lines here", ""]
    assert ptb_tokenize([]) == []


def test_the_next_caption_tells_whose_a_full_stop_is() -> None:
    assert ptb_tokenize(["vitamin c.", "The sun"]) == ["vitamin c", "the sun"]
    assert ptb_tokenize(["vitamin c.", "sun"]) == ["vitamin c.", "sun"]


@pytest.mark.skipif(shutil.which("java") is None, reason="compares with Java's tokenizer")
def test_python_and_java_agree_on_captions() -> None:
    rng = random.Random(0)
    captions = [caption for caption, _ in AWKWARD] + ["", "two\nlines"]
    plain, odd = PLAIN.split(), ODD.split()
    for _ in range(3000):
        words = [rng.choice(rng.choice((plain, odd))) for _ in range(8)]
        captions.append(" ".join(words).capitalize() + rng.choice(["", ".", " .", "!"]))
    both = zip(ptb_tokenize(captions), java_tokenize(captions), strict=True)
    differing = [(python, java) for python, java in both if python != java]
    assert len(differing) <= 3, differing  # of 3,000: initials before "Mr.." at the end of a caption, and the like
