"""Messages in place of Hydra's."""

import pytest

from search.api import compose
from spaces.errors import ConfigError


def test_a_key_of_another_task_is_named_with_what_would_be_right():
    wanted = r"evaluator\.domains\.tokenizer takes its value from task\.data\.tokenizer, .* set evaluator\.domains\.tokenizer=.*another task"
    with pytest.raises(ConfigError, match=wanted):
        compose(["evaluator=[accuracy,cost,domains]", "evaluator.domains.domains={a: texts}"])
