"""`capfilt.html`: the figures are on it, pictures are inside it, and nothing of a text becomes a part of the page."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from bootstrapping.choice import select
from bootstrapping.scores import TextScore
from data.corpus.sources import CorpusData
from tests.bootstrapping.made_up import ABOUT, row, uid, write_run

HOSTILE = "<script>alert(1)</script> <img src=x onerror='alert(2)'> \"quoted\" &lt; ]]> \x00\u202e"


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def page_of(tmp_path, monkeypatch):
    """The page of a choice among rows whose pictures are in a folder."""
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path / "cache"))
    pictures = tmp_path / "pictures"
    (pictures / "<b>").mkdir(parents=True)
    for name in ("001.jpg", "002.jpg", "<b>/3.jpg"):
        Image.new("RGB", (400, 300), (200, 30, 30)).save(pictures / name)

    def page(rows: list[TextScore], *keys: str, about=ABOUT, run=None) -> Page:
        places = CorpusData(corpus=["list.json"], image_root=str(pictures), url_root=str(pictures)).places()
        run = {"corpus": {"kind": "lists"}, "places": places} if run is None else run
        folder = write_run(tmp_path / "run", {"a": rows}, run, about)
        assert select([str(folder), *keys]) == 0
        return Page(folder / "selected" / "capfilt.html")

    return page


ROWS = [
    row(1, "web", 0, HOSTILE, 0.9),
    row(1, "synthetic", 0, "a red wall", 0.8),
    row(2, "web", 0, "buy now", 0.1),
    row(2, "synthetic", 0, "a wall", 0.4),
    row(3, "web", 0, "a third", 0.6, image="<b>/3.jpg"),
]


def test_texts_names_and_reasons_stay_text(page_of):
    models = {"captioner": {"source": "<i>c</i>", "sha256": "0" * 64}, "filter": {"source": "f", "sha256": "1" * 64}}
    page = page_of(ROWS, about={**models, "bad": [["<u>9.jpg</u>", "<s>not a picture</s>"]]})
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "b", "i", "u", "s"})
    for text in ("<script>alert(1)</script> <img src=x onerror='alert(2)'>", "<b>/3.jpg", "<i>c</i>", "<u>9.jpg</u>"):
        assert text in page.text
    assert "<s>not a picture</s>" in page.text
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_the_page_loads_nothing_and_holds_its_pictures(page_of):
    page = page_of(ROWS)
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(sources) == 5
    assert all(re.match(r"data:image/jpeg;base64,[A-Za-z0-9+/=]{200,}$", source) for source in sources)
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "script", "iframe", "object", "embed", "base"})
    assert not [attributes for _, attributes in page.tags if "href" in attributes or "url(" in str(attributes)]


def test_the_page_fits_a_phone(page_of):
    page = page_of([row(1, "web", 0, "x" * 300, 0.9)])
    viewport = {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    assert ("meta", viewport) in page.tags
    tables = [number for number, (tag, _) in enumerate(page.tags) if tag == "table"]
    assert [page.tags[number - 1] for number in tables] == [("div", {"class": "table"})], "which scrolls by itself"
    style = Path(page.file).read_text("utf-8").partition("</style>")[0]
    for rule in ("overflow-wrap: anywhere", "pre-wrap", "svg { max-width: 100%", ".table { overflow-x: auto"):
        assert rule in style


def test_an_example_has_both_scores(page_of):
    text = " ".join(page_of([row(1, "web", 0, "a wall", 0.875)], "cosine=0.1").text.split())
    assert "cosine 0.250 match 0.875 text a wall image 001.jpg" in text


def test_the_figures_are_on_the_page(page_of):
    page = page_of(ROWS, "captions_per_image=2")
    text = " ".join(page.text.split())
    assert "kept by match: the web's texts from 0.5 on, synthetic texts from 0.5 on" in text
    assert "at most 2 of an image" in text
    assert "a.pth (SHA-256 aaaaaaaaaaaaaaaa)" in text
    assert "2 of 3 images have a text that is kept." in text
    assert "66.7%" in text
    assert "50.0%" in text
    for heading in (
        "Kept: the web's texts (2",
        "Kept: synthetic texts (1",
        "the score being too low: the web's texts (1",
    ):
        assert heading in text
    assert sum(tag == "svg" for tag, _ in page.tags) == 4  # match and cosine of either source


def test_calibration_is_shown_where_truth_is_known(page_of, tmp_path):
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({uid(1): True, uid(2): False, uid(3): False}))
    page = page_of(ROWS, f"truth={truth}")
    text = " ".join(page.text.split())
    assert (
        "3 web texts, of which 2 do not belong to their image; 1 of these are dropped, and 0 that belong there." in text
    )
    assert "precision 1.000, recall 0.500, f1 0.667" in text
    assert sum(tag == "circle" for tag, _ in page.tags) == 3


def test_pictures_that_are_gone_are_named(page_of):
    page = page_of([row(7, text="a text", image="gone.jpg"), row(8, image="https://example.org/8.jpg")])
    assert "gone.jpg: " in page.text
    assert page.text.count("No such file or directory") == 2


@pytest.mark.parametrize(
    "run", [{}, {"corpus": {"kind": "shards"}, "places": CorpusData(corpus=["gone/*.tar"]).places()}]
)
def test_a_corpus_that_is_gone_leaves_the_choice_as_it_is(run, page_of):
    assert "a text" in page_of([row(7, text="a text")], run=run).text


def test_examples_are_as_many_as_wanted_and_one_an_image(page_of):
    rows = [row(number, "web", n, f"text {n}", 0.9) for number in range(1, 9) for n in range(2)]
    assert "Kept: the web's texts (3 examples)" in page_of(rows, "gallery=3").text
    assert "Kept: the web's texts (8 examples)" in page_of(rows).text


def test_a_long_text_is_shortened(page_of):
    page = page_of([row(1, text="x" * 5000)])
    assert f"{'x' * 400}... (5,000 characters)" in page.text
    assert "x" * 401 not in page.text
