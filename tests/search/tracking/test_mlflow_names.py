import re

from hypothesis import given
from hypothesis import strategies as st

from search.tracking.mlflow_names import clip, safe_name, safe_names

names = st.text(max_size=400)


@given(names)
def test_a_safe_name_is_what_mlflow_accepts(name):
    from posixpath import normpath

    safe = safe_name(name)
    assert re.fullmatch(r"[\w\-. /]{1,250}", safe, flags=re.ASCII)
    assert normpath(safe) == safe
    assert safe not in ("", ".", "..")
    assert not safe.startswith(("/", ".."))


@given(st.lists(names, max_size=20))
def test_distinct_names_stay_distinct(given_names):
    found = safe_names(given_names)
    assert set(found) == set(given_names)
    assert len(set(found.values())) == len(found)


def test_usual_names_are_kept():
    assert safe_name("cost.stm32h743.latency_ms") == "cost.stm32h743.latency_ms"
    assert safe_name("quantize.weight_bits[block1.conv1]") == "quantize.weight_bits/block1.conv1"


def test_clip_says_where_the_rest_is():
    assert clip("short", 10, "elsewhere") == "short"
    cut = clip("x" * 100, 30, "elsewhere")
    assert len(cut) == 30
    assert cut.endswith("(elsewhere)")
