"""The Penn Treebank tokens that caption metrics are defined on, without Java.

COCO's captions are scored on what Stanford's `PTBTokenizer -preserveLines -lowerCase` makes of them (CoreNLP 3.4.1,
as pycocoevalcap runs it), less a list of punctuation. BLEU, ROUGE-L and CIDEr need nothing else of Java, and
`ptb_tokenize` gives the same strings: brackets become `-lrb-`, `-lsb-`, `-lcb-`; `isn't` is `is n't`, `cannot` is
`can not`; hyphens, slashes and abbreviations hold a word together (`two-story`, `and/or`, `p.m.`), other marks part
it; a pound is `#`, a euro `$`; emoji vanish. Like any lexer of the lex family it takes, at each place, the rule that
reads furthest, context included, and among equals the first, so the order of `_RULES` matters.

Known not to be followed: entities such as `&eacute;`, odd e-mail addresses, French elisions (`qu'il`), and scripts
whose vowel signs Java counts as letters (Hindi).
"""

import re
from collections.abc import Sequence

# What pycocoevalcap drops after tokenizing. It lists the brackets in capitals, after lower-casing: `-lrb-` stays.
DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

_APOS = r"(?:['\u2019]|&apos;)"
_APOS_OR_QUOTE = r"(?:['`\u2018\u2019\u201b]|&apos;)"
_QUOTE = r"\u2018\u2019\u201b-\u201d\u2039\u203a\u00ab\u00bb"
_SPACE = r"[ \t\u00a0\u2000-\u200a\u3000]"
# \w holds superscripts and fractions too, which Java does not call letters.
_LETTER = r"(?:[^\W\d_\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u209c\u2150-\u218f\u2460-\u24ff]|[\u00ad\u0300-\u036f])"
_ALNUM = rf"(?:{_LETTER}|\d)"
_WORD = rf"{_LETTER}{_ALNUM}*(?:[.!?]{_LETTER}{_ALNUM}*)*"

# Words that keep their full stop whatever follows, only when capitalized, and only before a digit.
_ABBREVIATIONS = (
    "adj|adm|adv|al|ala|alex|apr|ariz|assn|asst|atty|attys|aug|ave|bhd|bldg|blvd|brig|bros|calif|capt|cf|cie|cmdr|co|col|"
    "colo|conn|corp|cos|cpl|ct|dak|dec|dept|det|dr|drs|ens|esq|est|etc|ext|feb|fla|fri|ft|ga|gen|gov|govs|hon|inc|ind|"
    "jan|jos|jr|jul|jun|kan|kans|ky|lieut|lt|ltd|maj|mar|md|messrs|mfg|mich|minn|mlle|mme|mo|mon|mont|mr|mrs|ms|mt|mtg|"
    "neb|nev|nov|oct|okla|penn|pfc|ph|plc|pres|prof|pte|pty|pvt|rd|rep|reps|rev|rt|sen|sens|sep|sept|seq|sfc|sgt|spc|sq|"
    "sr|st|ste|supt|sys|tel|tenn|thu|thurs|treas|tue|tues|univ|va|vs|vt|wed|wis|wisc|wm|wyo"
)
_CAPITAL_ABBREVIATIONS = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"
_NUMBER_ABBREVIATIONS = "art|ca|fig|figs|no|nos|op|pp|prop"
# After "a.", "b.", ... these begin a sentence, so the stop is not the initial's own.
_SENTENCE_STARTERS = (
    "A|About|According|Additionally|After|An|As|At|But|Earlier|He|Her|Here|However|If|In|It|Last|Many|More|Now|Once|One|"
    "Other|Our|She|Since|So|Some|Such|That|The|Their|Then|There|These|They|This|We|What|When|While|Yet|You"
)
_CONTRACTED_PAIRS = (("can", "not"), ("gon", "na"), ("got", "ta"), ("lem", "me"), ("gim", "me"), ("wan", "na"))

# Groups are the tokens, in order; what a pattern matches after its last group is context, which counts towards its
# length but is read again. Every text ends in a newline, so "not a letter" always has a character to match.
_RULES = [
    re.compile(pattern)
    for pattern in (
        *(rf"((?i:{first}))((?i:{second}))" for first, second in _CONTRACTED_PAIRS),
        r"('[tT])(?i:is|was)",
        # markup
        r"(<(?:[!?][A-Za-z-][^>\n]*|/?[A-Za-z][A-Za-z0-9:._-]*(?: +[A-Za-z][\w:.-]*(?:=\"[^\"\n]*\")?)* */?)>)",
        # contractions
        rf"({_LETTER}+?)[nN]{_APOS_OR_QUOTE}[tT]",
        rf"([nN]{_APOS_OR_QUOTE}[tT][A-Za-z]*)",
        rf"({_WORD}){_APOS}(?i:[msd]|re|ve|ll)",
        rf"({_APOS}(?i:[msd]|re|ve|ll))[^A-Za-z]",
        rf"([yY]{_APOS})[A-Za-z]",
        rf"([dDlLoO]{_APOS_OR_QUOTE}[A-Za-z][A-Za-z0-9]+|[A-XZn]{_APOS}[A-Za-z]{{2,}})",
        rf"({_APOS}[nN]{_APOS})",
        rf"({_APOS}[nN])[^A-Za-z0-9]",
        rf"([dDjJlL]{_APOS}|(?i:ol|somethin|dunkin){_APOS}|(?i:ma{_APOS}am)|{_APOS}(?i:em|till?|cause))",
        rf"({_APOS}[2-9]0s)",
        r"(['\u2019]\d\d)\s",
        # addresses and handles
        r"((?i:https?)://[^\s\"<>|()]+[^\s\"<>|.!?(){},-])",
        r"((?:www\.(?:[^\s\"<>|.!?(){},]+\.)+[A-Za-z]{2,4}|(?:[^\W\d_][^\W_]*\.)+(?:com|net|org|edu))"
        r"(?:/[^\s\"<>|()]+[^\s\"<>|.!?(){},-])?)",
        r"([A-Za-z0-9][^\s\"<>|(){}]*@(?:[^\s\"<>|().]+\.)*[^\s\"<>|().:;,'!?]+)",
        r"(@[A-Za-z_]\w*)",
        rf"(#{_LETTER}+)",
        # numbers, fractions, telephone numbers (an unlucky row of numbers is one: spaces inside stay, unbreakable)
        r"([-+]?(?:\d+(?:[.:,]\d+)*|(?:[.:,]\d+)+))",
        r"((?:\d{1,4}[- \u00a0])?\d{1,4}\\?[/\u2044]\d{1,4})",
        r"((?:\(\d{2,3}\)[ \u00a0]?|(?:\+\+?)?(?:\d{2,4}[- \u00a0])?\d{2,4}[- \u00a0])\d{3,4}[- \u00a0]?\d{3,5})",
        r"([A-Z]+\$)",
        # words
        rf"({_WORD})",
        rf"({_ALNUM}+(?:_{_ALNUM}+)*)",
        rf"({_ALNUM}(?:{_ALNUM}|[.,_])*(?:[-\u2010\u2011](?:[A-Za-z](?:\.[A-Za-z])+\.|{_ALNUM}+(?:_{_ALNUM}+)*))+)",
        r"([A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2})",
        r"([A-Z]+(?:&|&amp;)[A-Z]+)",
        # abbreviations and initials
        rf"([A-Za-z])\.\s+(?:(?:{_SENTENCE_STARTERS})\s|M[rs]\.)",
        r"([A-Za-z](?:\.[A-Za-z])*\.)",
        rf"((?:(?i:{_ABBREVIATIONS})|{_CAPITAL_ABBREVIATIONS})\.)",
        r"((?i:ph)\.[dD]\.)",
        rf"((?i:{_NUMBER_ABBREVIATIONS})\.)\s?\d",
        rf"((?:{_WORD}|{_ALNUM}+)\.)[,;:]",
        # faces and marks
        r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]])[^A-Za-z0-9]",
        r"([-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\))",
        r"(&(?:amp|lt|gt|quot);)",
        rf"([{_QUOTE}`]*[{_QUOTE}][{_QUOTE}`]*|``|'')",
        r"([?!]+|\*+|#+|@+|<<|>>|_+|\.{3,5}|-{2,4}(?!-)|-{5,})",
    )
]
_LINE_BREAKS = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]|&nbsp;")
_PLAIN_WORD = re.compile(r"([A-Za-z]{2,})(?=[ \n]|\.\n)")
_NOT_PLAIN = frozenset(
    ["".join(pair) for pair in _CONTRACTED_PAIRS]
    + f"{_ABBREVIATIONS}|{_CAPITAL_ABBREVIATIONS}|{_NUMBER_ABBREVIATIONS}".lower().split("|")
)
# Symbols that stand alone; any other character that no rule reads (emoji, rare brackets and hyphens) is deleted.
_SYMBOL = re.compile(
    r"[!-/:-@\[-`{-~\u00a1-\u00bf\u00d7\u00f7\u2013-\u201e\u2020-\u2023\u2026\u2030-\u203b\u203e-\u2044\u2070-\u208e"
    r"\u20a0\u20a4\u20ac\u2100-\u214f\u2153-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff65\uffe0-\uffe6]"
)
_WRITTEN_AS = {
    **{"[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''"},
    **{"\u00a2": "cents", "\u00a3": "#", "\u00a4": "$", "\u20a0": "$", "\u20ac": "$", '"': "''", "\u2026": "..."},
    **{"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"},
}
_QUOTES = str.maketrans(
    {"\u2018": "`", "\u2019": "'", "\u201b": "`", "\u2039": "`", "\u203a": "'"}
    | {"\u201c": "``", "\u201d": "''", "\u00ab": "``", "\u00bb": "''"}
)
_CONTRACTION = re.compile(rf"[nN]{_APOS_OR_QUOTE}[tT]|{_APOS}(?i:[msd]|re|ve|ll)|[^\w\s]+")
_DASHES_OR_DOTS = re.compile(r"-{2,4}|[\u2013-\u2015]|\.+")


def ptb_tokenize(captions: Sequence[str]) -> list[str]:
    """The tokens of each caption, lower-cased, without punctuation, joined by single spaces.

    A space inside a token (`1 1/2`, telephone numbers) is a no-break space, as in the original. As there, the captions
    are one text with a line each: a caption that ends in `row b.` or `no.` is read with an eye on how the next begins.
    """
    text = "".join(_LINE_BREAKS.sub(" ", caption) + "\n" for caption in captions)
    lines: list[list[str]] = [[]]
    position = 0
    while position < len(text):
        if plain := _PLAIN_WORD.match(text, position):
            found, position = plain.groups(), plain.end()
            if plain[1].lower() in _NOT_PLAIN:
                found, position = _longest(text, plain.start())
        elif text[position] == "\n":
            found, position = (), position + 1
            lines.append([])
        else:
            found, position = _longest(text, position)
        lines[-1].extend(token for token in map(_written, found) if token and token not in DROPPED)
    return [" ".join(line) for line in lines[:-1]]


def _longest(text: str, position: int) -> tuple[tuple[str, ...], int]:
    """The tokens of the rule that reads furthest from `position`, and where reading goes on."""
    matches = [match for rule in _RULES if (match := rule.match(text, position))]
    if not matches:
        return ((text[position],) if _SYMBOL.match(text, position) else ()), position + 1
    best = max(matches, key=re.Match.end)  # the first of equals
    return best.groups(), best.end(best.re.groups)


def _written(token: str) -> str:
    """The token in the spelling of the Penn Treebank."""
    if token in _WRITTEN_AS:
        return _WRITTEN_AS[token]
    if _DASHES_OR_DOTS.fullmatch(token):
        return "--"
    if _CONTRACTION.fullmatch(token):
        token = token.translate(_QUOTES)
    token = token.replace("(", "-lrb-").replace(")", "-rrb-").replace("&apos;", "'").replace("&amp;", "&")
    return re.sub(_SPACE, "\u00a0", token).replace("\u00ad", "").lower()
