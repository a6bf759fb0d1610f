"""What models say about pictures: in a line of Python (`calls`), and the tasks of predict.py with their files."""

from typing import TYPE_CHECKING

from models.face import lazy_names

if TYPE_CHECKING:
    from prediction.calls import Answerer, Captioner, Matcher
    from prediction.picture_call import Folder
    from prediction.results import RankedAnswer, ScoredCaption, TextMatch
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "Answerer": "prediction.calls",
            "Captioner": "prediction.calls",
            "Folder": "prediction.picture_call",
            "Matcher": "prediction.calls",
            "RankedAnswer": "prediction.results",
            "ScoredCaption": "prediction.results",
            "TextMatch": "prediction.results",
        },
    )

__all__ = ["Answerer", "Captioner", "Folder", "Matcher", "RankedAnswer", "ScoredCaption", "TextMatch"]
