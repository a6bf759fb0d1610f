"""The Java programs of caption scoring: Stanford's tokenizer, METEOR and SPICE, in the archives of pycocoevalcap.

`JavaMissing` says in one sentence what is not installed and where it goes; scoring reports it in place of a number.
"""

import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from metrics.scorers import require_scorers
from metrics.tokenize import DROPPED

_CORENLP_URL = "http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
_CORENLP_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
# SPICE (2016) reaches into classes that Java 17 closed. Java 8 does not read JDK_JAVA_OPTIONS, and needs none.
_OPENED = ("lang", "math", "net", "text", "util", "util.concurrent")
_OPEN_MODULES = " ".join(f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in _OPENED)


class JavaMissing(Exception):
    """A score cannot be computed here; the message is the reason, for the report."""


def java_tokenize(captions: Sequence[str]) -> list[str]:
    """The tokens that Stanford's tokenizer gives for each caption, without the punctuation that pycocoevalcap drops."""
    lines = [" ".join(caption.split()) for caption in captions]  # one caption a line, whatever breaks it holds
    archive = require_scorers() / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    command = ["-Dfile.encoding=UTF-8", "-cp", str(archive), "edu.stanford.nlp.process.PTBTokenizer"]
    output = _run([*command, "-preserveLines", "-lowerCase"], "\n".join(lines) + "\n").split("\n")[:-1]
    if len(output) != len(lines):
        raise JavaMissing(f"the Java tokenizer gave {len(output)} lines for {len(lines)} captions")
    return [" ".join(token for token in line.split(" ") if token and token not in DROPPED) for line in output]


def meteor(references: Mapping[int, list[str]], candidates: Mapping[int, list[str]]) -> tuple[float, list[float]]:
    """Corpus METEOR and that of each image, as shares of 1."""
    from pycocoevalcap.meteor.meteor import Meteor

    _java()
    scorer = Meteor()
    try:
        total, each = scorer.compute_score(references, candidates)
    except (OSError, ValueError) as error:  # the process died: its answers end, or are no numbers
        raise JavaMissing(f"METEOR's Java process failed ({error})") from error
    finally:
        if scorer.lock.locked():  # left locked by an exception; the scorer's destructor would wait for ever
            scorer.lock.release()
        for pipe in filter(None, (scorer.meteor_p.stdin, scorer.meteor_p.stdout, scorer.meteor_p.stderr)):
            with suppress(OSError):  # what a dead process did not read cannot be flushed
                pipe.close()
    return total, each


def spice(references: Mapping[int, list[str]], candidates: Mapping[int, list[str]]) -> tuple[float, list[float]]:
    """Mean SPICE and that of each image (in the order of `candidates`), as shares of 1."""
    package = _spice_folder()
    lacking = [name for name in _CORENLP_JARS if not (package / "lib" / name).exists()]
    if lacking:
        java = "" if shutil.which("java") else "Java, and "
        raise JavaMissing(f"needs {java}{' and '.join(lacking)} of {_CORENLP_URL} in {package / 'lib'}")
    _java()
    items = [{"image_id": key, "test": candidates[key][0], "refs": references[key]} for key in candidates]
    with tempfile.TemporaryDirectory(prefix="spice-") as folder:
        source, target = Path(folder, "captions.json"), Path(folder, "scores.json")
        source.write_text(json.dumps(items))
        archive = package / "spice-1.0.jar"
        _run(["-Xmx8G", "-jar", str(archive), str(source), "-out", str(target), "-subset", "-silent"])
        results = json.loads(target.read_text())
    f_scores = {item["image_id"]: item["scores"]["All"]["f"] for item in results}
    unscored = [key for key in candidates if f_scores.get(key) is None or math.isnan(f_scores[key])]
    if unscored:
        raise JavaMissing(f"SPICE gave no score for {len(unscored)} images, image {unscored[0]} among them")
    each = [float(f_scores[key]) for key in candidates]
    return sum(each) / len(each), each


def _spice_folder() -> Path:
    return require_scorers() / "spice"


def _java() -> str:
    java = shutil.which("java")
    if java is None:
        raise JavaMissing("needs Java")
    return java


def _run(arguments: Sequence[str], text: str = "") -> str:
    environment = os.environ | {"JDK_JAVA_OPTIONS": f"{os.environ.get('JDK_JAVA_OPTIONS', '')} {_OPEN_MODULES}".strip()}
    done = subprocess.run(
        [_java(), *arguments], input=text, capture_output=True, encoding="utf-8", errors="replace", env=environment
    )
    if done.returncode:
        complaint = [line for line in done.stderr.splitlines() if not line.startswith("NOTE:")]
        raise JavaMissing(f"Java failed: {complaint[0] if complaint else f'exit status {done.returncode}'}")
    return done.stdout
