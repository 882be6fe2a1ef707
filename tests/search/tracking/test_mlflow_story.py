from markdown_it import MarkdownIt

from search.report.testing import hostile_results
from search.tracking.mlflow_story import description


def test_texts_of_the_study_are_no_markup_in_the_description(tmp_path):
    page = (
        MarkdownIt("commonmark", {"html": True})
        .enable("table")
        .render(description(hostile_results(tmp_path)))
    )
    for markup in ("<script", "<img", "<a ", "<h1", "<ol"):
        assert markup not in page, markup
    assert page.count("<pre>") == 1
    assert "alert(1)" in page
