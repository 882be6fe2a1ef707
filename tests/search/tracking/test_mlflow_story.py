import re
from dataclasses import replace

from markdown_it import MarkdownIt

from search.record.results import TrialRecord
from search.report.testing import fake_results, hostile_results
from search.tracking.mlflow_names import MOST_TAG_CHARS
from search.tracking.mlflow_story import description, front_table, parent_tags
from spaces.candidate import Candidate

PLACE = ("1", "0123456789abcdef")


def rendered(text):
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def test_texts_of_the_study_are_no_markup_in_the_description(tmp_path):
    page = rendered(description(hostile_results(tmp_path)))
    for markup in ("<script", "<img", "<a ", "<h1", "<ol"):
        assert markup not in page, markup
    assert page.count("<pre>") == 1
    assert "alert(1)" in page


def test_with_a_place_only_our_own_links_and_picture_are_added(tmp_path):
    page = rendered(description(hostile_results(tmp_path), PLACE, with_picture=True))
    for target in re.findall(r'(?:href|src)="([^"]*)"', page):
        assert target.startswith(
            ("#/experiments/1/", "get-artifact?path=front.svg&amp;run_uuid=0123456789abcdef")
        )
    assert "<script" not in page


def test_the_first_lines_say_what_to_ship_and_the_rest_why_and_how_to_load_it(tmp_path):
    results = fake_results(tmp_path, 12)
    text = description(results, PLACE)
    assert text.startswith(f"Ship trial {results.picks[0].number} to {results.picks[0].device}")
    for pick in results.picks:
        assert pick.why in text
        assert f"models:/digits@{pick.device}" in text
    assert len(text) <= MOST_TAG_CHARS
    assert rendered(text).count("<pre>") == 2  # how to load, and the command


def test_before_any_candidate_the_baseline_is_told(tmp_path):
    text = description(fake_results(tmp_path, 0))
    assert "**Baseline: the uncompressed model**" in text
    assert "| top1 | 98.00 %" in text


def test_the_uncompressed_model_may_be_the_pick(tmp_path):
    results = fake_results(tmp_path, 6)
    float_model = TrialRecord(-1, "complete", "", Candidate({}), results.baseline)
    trials = (*results.trials, float_model)  # where a study looks it up
    picks = tuple(replace(p, number=-1) for p in results.picks)
    results = replace(results, trials=trials, front=(-1, *results.front), best=-1, picks=picks)
    tags = parent_tags(results, PLACE)
    assert tags["best"] == "the float model"
    assert tags["front"].startswith("baseline, ")
    assert "models:/digits@host" in tags["mlflow.note.content"]
    assert front_table(results)["data"][0][0] == "baseline"
