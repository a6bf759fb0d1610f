"""NLVR2: accuracy by example, consistency by statement."""

import pytest

from metrics.nlvr import score_nlvr, statement_of


def test_an_identifiers_pair_is_what_a_statements_examples_differ_in() -> None:
    assert statement_of("dev-850-0-2", "a") == statement_of("dev-850-3-2", "b") == "dev-850-2"
    assert statement_of("dev-850-0-1", "a") != statement_of("dev-850-0-2", "a")


@pytest.mark.parametrize("identifier", [None, 7, "", "pair7", "dev-850"])
def test_without_an_identifier_of_nlvr2s_the_sentence_is_the_statement(identifier) -> None:
    assert statement_of(identifier, "two dogs") == "two dogs"


def test_a_statement_counts_when_right_for_all_its_pairs() -> None:
    identifiers = ["dev-1-0-0", "dev-1-1-0", "dev-1-0-1", "dev-2-0-0", "dev-2-1-0", "dev-2-2-0"]
    labels = [True, False, True, True, True, False]
    predictions = [True, False, True, True, True, True]
    scores = score_nlvr(predictions, labels, [statement_of(name, "") for name in identifiers])
    assert scores.accuracy == pytest.approx(100 * 5 / 6)
    assert scores.consistency == pytest.approx(100 * 2 / 3)
    assert (scores.examples, scores.statements, scores.correct[-1]) == (6, 3, False)


def test_counts_must_agree() -> None:
    with pytest.raises(ValueError, match="1 predictions, 2 labels"):
        score_nlvr([True], [True, False], ["a", "b"])
