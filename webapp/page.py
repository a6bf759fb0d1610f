"""The page in the browser: what is entered, and where results are shown. All of Gradio is here."""

# pyright: reportMissingImports=false
# `make lint` does not install Gradio.

import html
import logging
import os
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from PIL import Image

from data.media.image_file import open_image
from evaluation.web_page import embedded, render_page
from files import REPOSITORY
from settings import UserError
from settings.messages import message
from webapp.limits import Limits
from webapp.result import Result
from webapp.tabs import BEAM, NUCLEUS, Tabs

os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")  # before gradio is imported
import gradio as gr
from gradio.themes import Default

logger = logging.getLogger("blip.app")

PICTURES = REPOSITORY / "demo" / "pictures"
STYLE = Path(__file__).parent / "page.css"
_EXAMPLES = Path(__file__).parent / "examples.html"
KEPT = 3600  # seconds after which uploads, and what the page remembers of a visitor who left, are deleted
_SESSIONS = 200  # visitors whose last results are remembered
# Tells which button in a piece of HTML was clicked: one listener for all of them, those of later results too.
_CLICKED = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-word], button[data-picture]');
  if (button) trigger('click', {...button.dataset});
});
"""
_SHAPES_ONLY = (
    "The small models that come along were trained on drawn shapes, and know nothing of photographs: "
    "`--checkpoint` takes released ones."
)

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


def plainly(function: Callable[Arguments, Value]) -> Callable[Arguments, Value]:
    """The function with errors as visitors see them: a UserError's own words, and of others, only that there was one.

    The latter stand in the log with their traceback.
    """

    @wraps(function)
    def answer(*arguments: Arguments.args, **named: Arguments.kwargs) -> Value:
        try:
            return function(*arguments, **named)
        except UserError as error:
            said = str(error)
        except torch.OutOfMemoryError:
            said = "The memory is too small for this: ask for less at once."
            logger.exception("out of memory")
        except Exception:
            said = "Something went wrong here, which is no fault of yours. The log of this page's server says what."
            logger.exception("a visitor got no answer")
        raise gr.Error(html.escape(message(said)), title="Not done", print_exception=False)  # it would be shown as HTML

    return answer


def build(tabs: Tabs, *, shapes_only: bool) -> gr.Blocks:
    """The page.

    Args:
        tabs: what it asks.
        shapes_only: whether one of the models comes along, which the page then says.
    """
    limits = tabs.limits
    with gr.Blocks(title="BLIP", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gr.Markdown("# Ask pictures\n" + (_SHAPES_ONLY if shapes_only else ""))
        with gr.Tab("One picture"), gr.Row():
            with gr.Column(scale=2, min_width=280):
                picture = _picture(limits)
            with gr.Column(scale=3, min_width=280):
                with gr.Tab("Caption"):
                    _caption_tab(tabs, picture)
                with gr.Tab("Question"):
                    _question_tab(tabs, picture)
                with gr.Tab("Match"):
                    _match_tab(tabs, picture)
        with gr.Tab("Search"):
            _search_tab(tabs)
    return page


def _picture(limits: Limits) -> gr.Image:
    """The picture that is asked about; what cannot be one is refused as soon as it is there."""
    picture = gr.Image(
        value=open_image(PICTURES / "yellow_moon_and_orange_star.jpg"),
        type="filepath",
        image_mode=None,
        format="png",  # in which a picture that comes along goes to the browser, and back
        sources=["upload", "clipboard"],
        buttons=["fullscreen"],
        label=f"Picture up to {limits.upload} MB, {limits.pixels} megapixels",
        height=300,
        elem_classes="picture",
    )
    # On this one, since of a class of ours Gradio would write a stub file beside the source.
    picture.preprocess = lambda payload: payload.path if payload else None  # Gradio would decode it, whatever its size
    take = picture.async_move_resource_to_block_cache

    async def take_file(url_or_file_path: str | Path | None) -> str | None:
        """What Gradio does with a path, but not with an address: this machine fetches none for a visitor."""
        if "://" in str(url_or_file_path or ""):
            raise gr.Error("Upload a file.", print_exception=False)
        return await take(url_or_file_path)

    picture.async_move_resource_to_block_cache = take_file
    paths = sorted(PICTURES.glob("*.jpg"))
    pictures = [(path.stem.replace("_", " "), embedded(path.read_bytes(), "jpeg")) for path in paths]
    examples = gr.HTML(render_page(_EXAMPLES, pictures=pictures).decode(), js_on_load=_CLICKED)

    @plainly
    def take_example(event: gr.EventData) -> Image.Image:
        return open_image(paths[int(event.picture)])

    @plainly
    def check(path: str | None) -> None:
        limits.picture(path)

    unseen: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    examples.click(take_example, None, picture, **unseen)
    picture.upload(check, picture, None, **unseen).failure(lambda: None, None, picture, **unseen)
    return picture


def _caption_tab(tabs: Tabs, picture: gr.Image) -> None:
    limits = tabs.limits
    way = gr.Radio([BEAM, NUCLEUS], value=BEAM, label="How captions are found")
    count = gr.Slider(1, limits.captions, 3, step=1, label="Captions")
    with gr.Accordion("More", open=False):
        beams = gr.Slider(1, limits.beams, 3, step=1, label="Beams of the search")
        top_p = gr.Slider(0.1, 1, 0.9, step=0.05, label="Nucleus: probability of the words to choose from")
        seed = gr.Number(0, precision=0, minimum=0, maximum=2**31, label="Nucleus: seed")
    button = gr.Button("Describe", variant="primary")
    _results([button.click], tabs.caption, [picture, way, count, beams, top_p, seed])


def _question_tab(tabs: Tabs, picture: gr.Image) -> None:
    question = gr.Textbox("what color is the star?", label="Question", max_length=tabs.limits.characters)
    answers = gr.Textbox(
        label="Answers to choose from, one a line; without any, the model writes one",
        lines=3,
        max_length=tabs.limits.characters,
    )
    button = gr.Button("Ask", variant="primary")
    _results([button.click, question.submit], tabs.answer, [picture, question, answers])


def _match_tab(tabs: Tabs, picture: gr.Image) -> None:
    texts = gr.Textbox(
        "a yellow moon and an orange star\na pink heart\ntwo black crosses",
        label="Texts to compare with the picture, one a line",
        lines=4,
        max_length=tabs.limits.characters,
    )
    button = gr.Button("Compare", variant="primary")
    _results([button.click], tabs.match, [picture, texts])


def _search_tab(tabs: Tabs) -> None:
    pictures, most = len(tabs.folder.paths), tabs.limits.found
    wanted = gr.Textbox(
        "a pink star", label=f"What to look for in {pictures:,} pictures", max_length=tabs.limits.characters
    )
    count = gr.Slider(1, max(2, min(most, pictures)), min(4, pictures), step=1, label="Pictures to show")
    button = gr.Button("Search", variant="primary")
    _results([button.click, wanted.submit], tabs.search, [wanted, count])


def _results(triggers: Sequence[Any], ask: Callable[..., Result], inputs: Sequence[Any]) -> None:
    """A result where `triggers` ask for it, whose words can be clicked. The models do one thing at a time."""
    one_at_a_time: dict[str, Any] = {"concurrency_id": "models", "concurrency_limit": 1, "api_visibility": "private"}
    last = gr.State(None, time_to_live=KEPT)
    shown = gr.HTML(js_on_load=_CLICKED)

    @plainly
    def answer(*values: Any) -> tuple[Result, str]:
        result = ask(*values)
        return result, result.page()

    @plainly
    def look(result: Result | None, event: gr.EventData) -> str:
        if result is None:
            raise UserError("This result is no longer kept: ask again.")
        return result.page(int(event.line), int(event.word))

    gr.on(triggers, answer, list(inputs), [last, shown], **one_at_a_time)
    shown.click(look, last, shown, **one_at_a_time)


def show(page: gr.Blocks, limits: Limits, host: str, port: int, root_path: str, queue: int) -> str:
    """Serve the page, in threads of its own: without files of this machine, links to share it, or reports to others.

    Args:
        page: what `build` has made.
        limits: of an upload.
        host, port: to listen at.
        root_path: where a reverse proxy shows the page.
        queue: the most requests that wait.

    Returns:
        its address.

    Raises:
        UserError: the address cannot be listened at.
    """
    plain = ("system-ui", "sans-serif")
    page.queue(max_size=queue, api_open=False)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            root_path=root_path,
            share=False,
            allowed_paths=[],
            max_file_size=limits.upload * 10**6,
            state_session_capacity=_SESSIONS,
            enable_monitoring=False,
            footer_links=[],
            run_history=False,
            pwa=False,
            mcp_server=False,
            ssr_mode=False,
            theme=Default(primary_hue="indigo", font=plain, font_mono=("ui-monospace", "monospace")),
            css_paths=STYLE,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise UserError(f"{host}, port {port}: {error}") from error
    return page.local_url or f"http://{host}:{port}/"
