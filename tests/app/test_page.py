"""The page in a real browser: upload, click, read; bad uploads; two visitors; a phone; no file to see."""

import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from files import REPOSITORY

pytestmark = pytest.mark.browser
pytest.importorskip("gradio", reason="`make test-app` installs the page's packages")
sync_api = pytest.importorskip("playwright.sync_api", reason="`make test-app` installs the browser's driver")

PICTURES = REPOSITORY / "demo" / "pictures"
KNOWN = {one["image"]: one for one in json.loads((PICTURES / "pictures.json").read_text())}
WAIT = 60_000  # milliseconds: the machine may be busy


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page of `python app.py`, with small limits."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("app") / "log"
    command = [sys.executable, "app.py", "--port", str(port), "--upload_mb", "1", "--megapixels", "1"]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=errors, text=True) as server,
    ):
        assert server.stdout is not None
        line = server.stdout.readline()
        if "the page is at" not in line:
            server.kill()
            pytest.fail(f"app.py did not start: {line} {log.read_text()}")
        yield re.search(r"http\S+/", line)[0]
        server.terminate()
    assert "a visitor got no answer" not in log.read_text()  # nobody here found a bug


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as driver:
        try:
            started = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.fail(
                "no browser: install chromium, or where there is a network, `python -m playwright install chromium` "
                f"({str(error).strip().splitlines()[0]})"
            )
        yield started
        started.close()


@pytest.fixture
def visit(browser, address: str) -> Iterator[Callable]:
    """Opens the page for a visitor of its own, at a width, and sees that nothing but this server is asked."""
    contexts, asked = [], set()

    def open_page(width: int = 1200, **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 850}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(WAIT)
        page.on("request", lambda request: asked.add(request.url))
        page.goto(address)
        page.get_by_role("button", name="Describe").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def upload(page, path: Path) -> None:
    """Replace the page's picture."""
    if page.get_by_role("button", name="Remove").or_(page.get_by_role("button", name="Clear")).count():
        page.get_by_role("button", name="Remove").or_(page.get_by_role("button", name="Clear")).first.click()
    with page.expect_response(lambda response: "/upload" in response.url):
        page.locator('input[type="file"]').first.set_input_files(path)


def open_tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def lines(page) -> list[list[str]]:
    """The words of each line of the result that is shown."""
    page.locator(".said:visible button").first.wait_for()
    return [line.locator(".words button").all_inner_texts() for line in page.locator(".said:visible .line").all()]


def said_of(page) -> str:
    """What a message to the visitor says."""
    toast = page.locator(".toast-message-text").first
    toast.wait_for()
    return toast.inner_text()


def test_upload_describe_click_and_look(visit):
    page = visit()
    upload(page, PICTURES / "black_heart.jpg")
    page.get_by_role("button", name="Describe").click()
    said = lines(page)
    assert " ".join(said[0]) == KNOWN["black_heart.jpg"]["said"]["caption"]
    assert len(said) == 3
    heart = page.locator(".said:visible button", has_text=re.compile("^heart$")).first
    heart.click()
    page.locator('.said:visible button[aria-pressed="true"]').wait_for()
    image = page.locator(".said:visible img")
    assert image.get_attribute("src").startswith("data:image/jpeg;base64,")
    assert image.evaluate("image => image.naturalWidth") == 512
    first = image.get_attribute("src")
    page.locator(".said:visible button").first.focus()  # by the keyboard, another word
    page.keyboard.press("Enter")
    page.wait_for_function("first => document.querySelector('.said img').src != first", arg=first)


def test_a_picture_that_comes_along_is_a_click_away(visit):
    page = visit()
    before = page.locator(".picture img").get_attribute("src")
    page.get_by_role("button", name="orange moon", exact=True).click()
    changed = "before => (document.querySelector('.picture img')?.getAttribute('src') ?? before) != before"
    page.wait_for_function(changed, arg=before)
    page.get_by_role("button", name="Describe").click()
    assert " ".join(lines(page)[0]) == KNOWN["orange_moon.jpg"]["said"]["caption"]


def test_nucleus_sampling(visit):
    page = visit()
    page.get_by_label("nucleus sampling").check()
    page.get_by_role("button", name="Describe").click()
    assert len(lines(page)) == 3


def test_a_question_is_answered_and_answers_are_ranked(visit):
    page = visit()
    upload(page, PICTURES / "pink_star.jpg")
    open_tab(page, "Question")
    page.get_by_role("button", name="Ask", exact=True).click()
    assert lines(page) == [["what", "color", "is", "the", "star"], ["pink"]]
    page.get_by_label("Answers to choose from").fill("blue\npink\nred")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".said:visible .bar").first.wait_for()
    said = lines(page)
    assert said[1] == ["pink"]
    assert len(said) == 4
    page.locator(".said:visible button", has_text="color").click()
    page.locator(".said:visible img").wait_for()


def test_texts_are_compared(visit):
    page = visit()
    open_tab(page, "Match")
    page.get_by_role("button", name="Compare").click()
    assert [" ".join(words) for words in lines(page)] == [
        "a yellow moon and an orange star",
        "a pink heart",
        "two black crosses",
    ]
    shares = [float(bar.get_attribute("style")[7:-1]) for bar in page.locator(".said:visible .bar div").all()]
    assert shares[0] > 50 > max(shares[1:])
    page.locator(".said:visible button", has_text="heart").click()
    page.get_by_text("what speaks against the match").wait_for()


def test_the_folder_is_searched(visit):
    page = visit()
    open_tab(page, "Search")
    page.get_by_label("What to look for").fill("a black heart")
    page.get_by_label("What to look for").press("Enter")
    assert lines(page) == [["a", "black", "heart"]]
    assert page.locator(".said:visible img").count() == 4
    before = page.locator(".said:visible img").first.get_attribute("src")
    page.locator(".said:visible button", has_text="heart").click()
    page.locator('.said:visible button[aria-pressed="true"]').wait_for()
    assert page.locator(".said:visible img").count() == 4
    assert page.locator(".said:visible img").first.get_attribute("src") != before


def test_bad_uploads_get_a_plain_message(visit, tmp_path):
    text, large, heavy = tmp_path / "notes.jpg", tmp_path / "large.png", tmp_path / "heavy.png"
    text.write_text("no picture <b>at all</b>")
    Image.fromarray(np.zeros((1100, 1000), dtype=np.uint8)).save(large)
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(heavy)  # 1.47 MB
    for path, said in (
        (text, "notes.jpg: not a picture"),
        (large, "large.png: 1000x1100 pixels: more than 1 million are not accepted"),
        (heavy, "1MB|1 MB|1000000|too large|exceed"),
    ):
        page = visit()
        upload(page, path)
        message = said_of(page)
        assert re.search(said, message), message
        assert "/" not in message
        page.get_by_role("button", name="Describe").click()
        page.get_by_text("Choose a picture first").wait_for()


def test_impossible_wishes_get_a_plain_message(visit):
    page = visit()
    open_tab(page, "Match")
    page.get_by_label("Texts to compare").fill("\n".join(f"<i>{number}</i>" for number in range(21)))
    page.get_by_role("button", name="Compare").click()
    assert said_of(page) == "Texts: 21 lines, and at most 20 are read."


def test_two_visitors_at_once_get_their_own_answers(visit):
    pages = {"black_heart.jpg": visit(), "orange_moon.jpg": visit()}
    for name, page in pages.items():
        upload(page, PICTURES / name)
    for page in pages.values():  # both wait for the same models
        page.get_by_role("button", name="Describe").click()
    for name, page in pages.items():
        assert " ".join(lines(page)[0]) == KNOWN[name]["said"]["caption"]
    for page in pages.values():
        page.locator(".said button").last.click()
    maps = [page.locator(".said img").get_attribute("src") for page in pages.values()]
    assert maps[0] != maps[1]


def test_a_phone_never_scrolls_sideways(visit):
    page = visit(width=360, is_mobile=True, device_scale_factor=2)

    def overhang() -> int:
        return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    assert overhang() <= 0
    page.get_by_role("button", name="Describe").click()
    lines(page)
    page.locator(".said:visible button").first.click()
    page.locator(".said:visible img").wait_for()
    assert overhang() <= 0
    for tab, button in (("Question", "Ask"), ("Match", "Compare"), ("Search", "Search")):
        open_tab(page, tab)
        page.get_by_role("button", name=button, exact=True).click()
        lines(page)
        assert overhang() <= 0


def test_of_a_bug_visitors_hear_that_there_is_one_and_the_log_the_rest(caplog):
    from gradio import Error

    from webapp.page import plainly

    def broken() -> None:
        raise RuntimeError("/secret/place")

    with pytest.raises(Error) as told:
        plainly(broken)()
    assert "no fault of yours" in told.value.message
    assert "secret" not in told.value.message
    assert "/secret/place" in caplog.text


def test_no_file_of_the_machine_can_be_read(address):
    for path in ("/etc/hostname", REPOSITORY / "README.md", PICTURES / "pink_star.jpg", "README.md", "../README.md"):
        for route in ("gradio_api/file=", "file=", "gradio_api/file/", "static/../../"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{address}{route}{path}", timeout=30)
            assert refused.value.code in (403, 404), (route, path)


@pytest.mark.parametrize("path", ["/etc/hostname", str(PICTURES / "pink_star.jpg"), "{address}theme.css"])
def test_no_file_or_address_can_be_asked_about(address, path):
    config = json.load(urllib.request.urlopen(f"{address}config", timeout=30))
    (image,) = (one["id"] for one in config["components"] if one["type"] == "image")
    (match,) = (one for one in config["dependencies"] if one["inputs"][:1] == [image] and len(one["inputs"]) == 2)
    file = {"path": path.format(address=address), "meta": {"_type": "gradio.FileData"}}
    asked = {"data": [file, "a pink star"], "fn_index": match["id"], "session_hash": "intruder"}
    request = urllib.request.Request(
        f"{address}gradio_api/queue/join", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    json.load(urllib.request.urlopen(request, timeout=30))
    said = urllib.request.urlopen(f"{address}gradio_api/queue/data?session_hash=intruder", timeout=60).read().decode()
    events = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("data: ")]
    (end,) = (one for one in events if one["msg"] == "process_completed")
    assert not end["success"]
    assert str(REPOSITORY) not in str(end["output"].get("error"))
