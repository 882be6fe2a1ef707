import re

from search.report.page.axis import scale
from search.report.page.bars import Bar, Stack, bars, stacked
from search.report.page.chart import HEIGHT, Axis, Point, Series, chart
from search.report.page.parallel import Thread, Upright, parallel
from search.report.page.testing import read_page


def test_points_lead_to_their_rows_and_say_what_they_are():
    points = [Point(1.0, 2.0, "trial <3>\nx 1", "trial-3"), Point(2.0, 4.0, "float model")]
    drawn = chart("t", [Series("front", "front", points)], Axis("x"), Axis("y"))
    assert '<a class="pt" href="#trial-3" aria-label="trial &lt;3&gt;\nx 1">' in drawn
    assert '<g class="pt" role="img" aria-label="float model">' in drawn
    assert read_page(drawn).problems == ["#trial-3 leads nowhere"]


def test_points_lie_where_the_axes_say():
    drawn = chart("t", [Series("", "front", [Point(0.0, 0.0), Point(10.0, 10.0)])], Axis("x"), Axis("y"))
    (x0, y0), (x1, y1) = [
        tuple(map(float, p)) for p in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)
    ]
    assert x0 < x1
    assert y1 < y0 < HEIGHT
    labels = dict(
        re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle" class="quiet">(\d+)</text>', drawn)
    )
    (ten,) = [float(x) for x, text in labels.items() if text == "10"]
    assert abs(ten - x1) < 0.11


def test_steps_go_sideways_first():
    drawn = chart("t", [Series("", "front", [Point(0, 0), Point(1, 1)], "", "steps")], Axis("x"), Axis("y"))
    corners = [
        tuple(map(float, c.split(","))) for c in re.search(r'points="([^"]*)"', drawn).group(1).split()
    ]
    assert [corners[0][1], corners[1][0]] == [corners[1][1], corners[2][0]]


def test_limits_are_lines_and_those_beyond_are_told():
    series = [Series("", "front", [Point(0, 1), Point(1, 2)])]
    drawn = chart("t", series, Axis("x", [("≤ 90 KiB", 90.0)]), Axis("y", [("≥ 1.5", 1.5)]))
    assert drawn.count('class="limit"') == 1
    assert "≥ 1.5" in drawn
    assert "≤ 90 KiB: beyond the chart" in drawn


def test_intervals_are_drawn_within_the_chart():
    point = Point(1.0, 2.0, y_ends=(1.0, 5.0), x_ends=(0.5, 2.0))
    drawn = chart("t", [Series("", "front", [point])], Axis("x"), Axis("y"))
    whiskers = re.findall(r'y1="([\d.]+)" x2="[\d.]+" y2="([\d.]+)" class="whisker', drawn)
    assert len(whiskers) == 2
    assert all(0 < float(end) < HEIGHT for ends in whiskers for end in ends)


def test_series_without_points_have_no_entry_in_the_legend():
    drawn = chart("t", [Series("a", "front", [Point(1, 1)]), Series("b", "other", [])], Axis("x"), Axis("y"))
    assert re.findall(r"</svg>(\w)</li>", drawn) == ["a"]


def test_bars_have_names_and_values():
    page = read_page(bars("t", [Bar("<knob>", 0.5, "50 %", (0.4, 0.7))]))
    assert page.problems == []
    assert "<knob>50 %" in page.text


def test_stacks_are_as_high_as_their_parts():
    drawn = stacked("t", [Stack([1.0, 3.0], "a"), Stack([2.0, 0.0], "b")], ["now", "later"], "KiB", limit=5.0)
    heights = [float(h) for h in re.findall(r'height="([\d.]+)"', drawn)]
    up = scale([4.0, 5.0], 210.0, 24.0, from_zero=True)
    assert heights[1] / heights[0] == 3.0 or abs(heights[1] - 3 * heights[0]) < 0.2
    assert abs(heights[0] - (up.at(0) - up.at(1))) < 0.06
    assert drawn.count('class="limit"') == 1


def test_better_is_up_on_every_axis_of_parallel_coordinates():
    axes = [
        Upright("top1", "%", True),
        Upright("latency", "ms", False, 4.0, "≤ 4 ms"),
        Upright("size", "KiB", False),
    ]
    threads = [Thread([90.0, 5.0, 10.0], "other"), Thread([95.0, 1.0, 5.0], "front", "trial 1", "trial-1")]
    drawn = parallel("t", axes, threads, [("front", "front")])
    worse, better = [
        [float(point.split(",")[1]) for point in points.split()]
        for points in re.findall(r'<polyline points="([^"]*)" class="thread', drawn)
    ]
    assert all(b < w for b, w in zip(better, worse, strict=True))
    assert "≤ 4 ms" in drawn
    assert 'class="limit strong"' in drawn
    assert 'href="#trial-1" aria-label="trial 1"' in drawn
