"""What each tab of app.py computes, from what a visitor has entered to the result that is shown."""

from collections.abc import Callable, Sequence
from functools import partial

from PIL import Image

from data.media.image_file import open_image
from models.word_maps import AnswerMaps, WordMaps, read_words
from prediction import Answerer, Captioner, Matcher
from settings import UserError
from webapp.folder import SearchedFolder
from webapp.limits import Limits
from webapp.result import Found, Line, Result

BEAM, NUCLEUS = "beam search", "nucleus sampling"
_SHOWN_ANSWERS = 10  # the most probable of those given
_EVEN = 0.5  # below this probability the model says that a text does not match


class Tabs:
    """The models, and what is asked of them. What a visitor can mend raises a UserError.

    Args:
        captioner, answerer, matcher: one for each task.
        folder: what is searched.
        limits: of what a visitor may ask.
    """

    def __init__(
        self,
        captioner: Captioner,
        answerer: Answerer,
        matcher: Matcher,
        folder: SearchedFolder,
        limits: Limits,
    ) -> None:
        self.captioner, self.answerer, self.matcher = captioner, answerer, matcher
        self.folder, self.limits = folder, limits

    def caption(self, path: str | None, way: str, count: float, beams: float, top_p: float, seed: float) -> Result:
        """The best captions by beam search, or samples.

        Args:
            path: the uploaded picture.
            way: `BEAM` or `NUCLEUS`.
            count: how many captions.
            beams: of the search; at least `count` are taken.
            top_p, seed: of the samples.
        """
        picture = self.limits.picture(path)
        count = self.limits.number("Captions", count, self.limits.captions)
        beams = self.limits.number("Beams", beams, self.limits.beams)
        if seed is None or not 0 <= seed < 2**63:  # None is an empty field
            raise UserError("Seed: must be a whole number from 0 on.")
        model = self.captioner.model
        call = Captioner(
            model,
            num_beams=max(beams, count),
            sample=way == NUCLEUS,
            top_p=top_p,
            seed=int(seed),
            device=str(self.captioner.device),
        )
        lines = [
            Line(
                text=best.caption,
                words=read_words(model, best.caption),
                maps=self._once(path, partial(self._caption_maps, best.caption)),
                shows="what speaks for writing it",
                figure=f"log-probability {best.log_prob:.2f}",
            )
            for best in call.n_best(picture, count)
        ]
        return self._of_one(path, lines)

    def answer(self, path: str | None, question: str, answers: str) -> Result:
        """An answer in the model's own words; or where answers are given, one a line, these by their probability."""
        picture = self.limits.picture(path)
        question = self.limits.text("Question", question)
        if not answers.strip():
            ranked = [(self.answerer(picture, question), None)]
        else:
            given = self.limits.lines("Answers", answers, self.limits.answers)
            best = self.answerer.rank(picture, question, given)[:_SHOWN_ANSWERS]
            ranked = [(one.answer, one.probability) for one in best]
        model, first = self.answerer.model, ranked[0][0]
        asked = Line(
            text=question,
            words=read_words(model, question),
            maps=self._once(path, lambda picture: self._answer_maps(question, first, picture).question),
            shows="what speaks for the first answer",
            label="question",
        )
        lines = [
            Line(
                text=answer,
                words=read_words(model, answer),
                maps=self._once(path, partial(self._answer_maps, question, answer)),
                shows="what speaks for this answer",
                label="answer" if number == 0 else "",
                figure="" if share is None else f"{share:.1%}",
                share=share,
            )
            for number, (answer, share) in enumerate(ranked)
        ]
        return self._of_one(path, [asked, *lines])

    def match(self, path: str | None, texts: str) -> Result:
        """How well each text, one a line, fits the picture."""
        picture = self.limits.picture(path)
        given = self.limits.lines("Texts", texts, self.limits.texts)
        model = self.matcher.model
        lines = [
            Line(
                text=one.text,
                words=read_words(model, one.text),
                maps=self._once(path, partial(self._match_maps, one.text, one.match < _EVEN)),
                shows="what speaks against the match" if one.match < _EVEN else "what speaks for the match",
                figure=f"match {one.match:.1%}, cosine {one.cosine:.2f}",
                share=one.match,
            )
            for one in self.matcher(picture, given)
        ]
        return self._of_one(path, lines)

    def search(self, text: str, count: float) -> Result:
        """The pictures of the folder that a text fits best, and where."""
        text = self.limits.text("What to look for", text)
        count = self.limits.number("Pictures", count, self.limits.found)
        found = self.folder.search(text, count)
        line = Line(
            text=text,
            words=read_words(self.matcher.model, text),
            maps=lambda: [self._match_maps(text, False, open_image(one.path)) for one in found],
            shows="what speaks for the match",
        )
        pictures = [
            Found(
                read=partial(open_image, one.path),
                caption=f"match {one.match.match:.1%}, cosine {one.match.cosine:.2f} (no. {one.place} by similarity)",
            )
            for one in found
        ]
        return Result(lines=[line], pictures=pictures, shows_pictures=True)

    def _of_one(self, path: str | None, lines: Sequence[Line]) -> Result:
        return Result(lines=lines, pictures=[Found(read=partial(self.limits.picture, path))])

    def _once(self, path: str | None, maps: Callable[[Image.Image], WordMaps]) -> Callable[[], Sequence[WordMaps]]:
        """The maps of the uploaded picture, to be found when a word is clicked: the file is read again then."""
        return lambda: [maps(self.limits.picture(path))]

    def _caption_maps(self, caption: str, picture: Image.Image) -> WordMaps:
        return self.captioner.maps(picture, caption)

    def _answer_maps(self, question: str, answer: str, picture: Image.Image) -> AnswerMaps:
        return self.answerer.maps(picture, question, answer)

    def _match_maps(self, text: str, against: bool, picture: Image.Image) -> WordMaps:
        return self.matcher.maps(picture, text, against=against)
