from itertools import product

from search.api import run
from search.knowledge.notes import weight_note


def test_how_much_earlier_studies_counted_is_told():
    assert weight_note([]) == ""
    text = weight_note([0.8, 0.5, 0.034])
    assert "80 % probable in the first proposal" in text
    assert "3 % in the last" in text


def test_a_study_says_how_much_what_it_knew_counted(tmp_path):
    lines = ["task,knob.a,knob.b,metric.score"]
    for task, shift in (("x", 0), ("y", 5), ("z", 9)):
        lines += [f"{task},{a},{b},{shift + a - b * b}" for a, b in product(range(5), range(5))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    found = run(
        [
            "experiment=tabular", f"tabular.path={tmp_path / 't.csv'}", "tabular.task=x", "sampler=surrogate", "study.n_trials=4",
            "tabular.stop_at_best=false", f"study.dir={tmp_path / 'out'}", "study.report=false", "study.storage=memory",
        ]
    )  # fmt: skip
    assert sum("resemble this one" in note for note in found.record.notes) == 1
