"""Words for things: descriptions that match any number of things of a scene, and references that match exactly one."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

from data.shapes.scene import Scene, Thing

NUMBERS = ("zero", "one", "two", "three", "four")
ANY_NOUN = "thing"


def plural(noun: str) -> str:
    return noun + "es" if noun.endswith("s") else noun + "s"


@dataclass(frozen=True)
class Description:
    """Some attributes of a thing; None leaves an attribute open."""

    size: str | None = None
    fill: str | None = None
    color: str | None = None
    shape: str | None = None

    @classmethod
    def of(cls, thing: Thing, attributes: Collection[str]) -> Description:
        """The description of `thing` by these attributes."""
        return cls(**{name: getattr(thing, name) for name in attributes})

    def matches(self, thing: Thing) -> bool:
        return (
            self.shape in (None, thing.shape)
            and self.color in (None, thing.color)
            and self.size in (None, thing.size)
            and self.fill in (None, thing.fill)
        )

    def count(self, scene: Scene) -> int:
        """How many things of the scene match."""
        return sum(map(self.matches, scene.things))

    @property
    def words(self) -> str:
        """'small striped red circle'"""
        return " ".join(word for word in (self.size, self.fill, self.color, self.shape or ANY_NOUN) if word)

    @property
    def plural(self) -> str:
        """'small striped red circles'"""
        *adjectives, noun = self.words.split()
        return " ".join([*adjectives, plural(noun)])

    def counted(self, count: int) -> str:
        """'a red circle', 'two red circles'"""
        return with_article(self.words) if count == 1 else f"{NUMBERS[count]} {self.plural}"


def with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def reference(
    rng: random.Random, thing: Thing, scene: Scene, attributes: Sequence[str], hide: str | None = None
) -> str | None:
    """Words that match `thing` and nothing else in `scene`, without the attribute `hide`; None if there are none.

    The shortest such description is taken, as people do.
    """
    known = [name for name in attributes if name != hide]
    for length in range(1, len(known) + 1):
        descriptions = [Description.of(thing, names) for names in combinations(known, length)]
        unique = [description for description in descriptions if description.count(scene) == 1]
        if unique:
            return rng.choice(unique).words
    return None


def enumeration(phrases: Sequence[str]) -> str:
    """'a, b and c'"""
    return " and ".join(filter(None, [", ".join(phrases[:-1]), phrases[-1]]))
