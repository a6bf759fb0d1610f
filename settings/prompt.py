"""The prompt, which the data (the captions to train on) and the search for captions both need."""

from dataclasses import dataclass

from settings.fields import Settings, setting


@dataclass
class PromptSettings(Settings):
    """How every caption starts."""

    prompt: str = setting("a picture of ", "words that every caption starts with")
