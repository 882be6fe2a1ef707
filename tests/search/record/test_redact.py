"""No secret is left in what users share or see, and nothing else is lost from it."""

import json

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from search.planning.config.command import command_text
from search.planning.config.shipped import shipped
from search.record.redact import is_secret, redact, redact_command, redact_text

PASSWORDS = st.text(min_size=4, max_size=20)
# what people put into passwords, more often than any character of Unicode
USUAL = st.text(alphabet="ab1 @/:'\"\\&?#%=,;{}[]()$", min_size=4, max_size=12)
SECRET_KEYS = [
    "password", "db.password", "study.db_password", "passwd", "hub_token", "hub.access-token", "apiKey", "api_key", "AccountKey",
    "aws_secret_access_key", "client.secret", "secretKey", "credential", "credentials", "gcp_credentials", "PGPASSWORD_KEY",
    "+hub.token",
]  # fmt: skip
INNOCENT = [
    "monkey", "task.key_points", "tokens", "n_tokens", "max_tokens", "tokenizer", "keyboard", "hotkey", "secretary",
    "key_points", "passwordless", "keep", "state_dict_keys", "token_reduction", "next_token_loss", "ms_per_token", "cost.host.load_s_per_token",
    "model.state_dict_key", "sort_key",
]  # fmt: skip


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_keys_of_secrets(key):
    assert is_secret(key)
    assert redact({key: "abcd"}) == {key: "***"}
    assert redact({key: 123456}) == {key: "***"}
    assert redact_text(f"{key}=abcd x=1") == f"{key}=*** x=1"
    assert redact_command(command_text([f"{key}=a b'c", "x=1"])) == command_text([f"{key}=***", "x=1"])


@pytest.mark.parametrize("key", INNOCENT)
def test_other_keys(key):
    assert redact({key: "abcd", "n": {key: 1234}}) == {key: "abcd", "n": {key: 1234}}
    for text in (f"{key}=abcd x=1", f"a.{key}=1234", json.dumps({key: "abcd"}), f"{{{key}: 1}}"):
        assert redact_text(text) == text
        assert redact_command(f"paredown {key}=1234") == f"paredown {key}=1234"


@pytest.mark.parametrize(
    "text",
    [
        "prune.token=0.5 http://host:5000",
        "wrong key: model.checkpoint, did you mean model.file? password must be given",
        "Key 'token' is not in struct",
        "https://host:8080/path/file.onnx and http://other:5000/",
        "sqlite:////tmp/a.db?mode=rw",
        "mail me@example.com",
        "trial 3 failed: StageError: conv.weight: ratio=0.5 is too much",
        "tracker.uri=http://host:5000 study.name=a@b",
        "s3://bucket/models/a@2x.onnx",
        "key == 5",
    ],
)
def test_texts_without_secrets_stay(text):
    assert redact_text(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://u:a/b@c d'x@h/d", "postgresql://***@h/d"),
        ("postgresql://me@firm.com:pw@h/d", "postgresql://***@h/d"),
        ("redis://:pw@h", "redis://***@h"),
        ("https://ghp_abc@github.com/a", "https://***@github.com/a"),
        ("a=http://h:5000 b=postgresql://u:p@h/d", "a=http://h:5000 b=postgresql://***@h/d"),
        ("from http://h:5000 to postgresql://u:p@h/d", "from http://h:5000 to postgresql://***@h/d"),
        ("https://h/p?token=abcd&n_tokens=5&sig=Z%3D", "https://h/p?token=***&n_tokens=5&sig=***"),
        ("https://h/?a=1&X-Amz-Signature=abc&x=1", "https://h/?a=1&X-Amz-Signature=***&x=1"),
        ("https://h/?X-Amz-Credential=AK%2F1&X-Amz-Security-Token=x/y", "https://h/?X-Amz-Credential=***&X-Amz-Security-Token=***"),
        ('{"password": "a, b", "n": 1}', '{"password": "***", "n": 1}'),
        ("{'hub': {'api_key': 1234, 'n': 1}}", "{'hub': {'api_key': ***, 'n': 1}}"),
        ("+db={password:abcd,user:x}", "+db={password:***,user:x}"),
        ("host=h password=pw dbname=d", "host=h password=*** dbname=d"),
        ("'a.password=b c' d=1", "'a.password=***' d=1"),
        ("Endpoint=x;AccountKey=ab==;Suffix=y", "Endpoint=x;AccountKey=***"),
        ("Authorization: Bearer abcdef", "Authorization: Bearer ***"),
    ],
)  # fmt: skip
def test_texts_with_secrets(text, expected):
    assert redact_text(text) == expected
    assert redact_text(expected) == expected


def test_a_section_is_redacted_by_its_keys():
    config = {
        "password": 1234, "token": 0.5, "n": 1, "credentials": {"user": "u", "n": [1, 2]}, "api_keys": ["a"],
        "tokens": {"keep": 0.5}, "stage": {"token": {"reduction": 0.5}}, "use_token": True, "key": None, "uri": "http://u:p@h",
    }  # fmt: skip
    assert redact(config) == {
        **config, "password": "***", "credentials": {"user": "***", "n": ["***", "***"]}, "uri": "http://***@h",
    }  # fmt: skip


@given(PASSWORDS | USUAL)
def test_no_password_is_left_in_a_url(password):
    url, expected = f"postgresql://user:{password}@host/db", "postgresql://***@host/db"
    assert redact({"storage": url}) == {"storage": expected}
    assert redact_command(command_text([f"study.storage={url}"])) == command_text(
        [f"study.storage={expected}"]
    )
    for text in (url, f"cannot open {url!r}: refused", f"study.storage={url} x=1"):
        assume(password not in text.replace(f":{password}@", ":@"))
        assert password not in redact_text(text)


@given(PASSWORDS | USUAL, st.sampled_from(SECRET_KEYS))
def test_no_password_is_left_under_a_key(password, key):
    assume(not password.replace(".", "").isdecimal() or "token" not in key)
    assert redact({key: password}) == {key: "***"}
    assert redact_command(command_text([f"{key}={password}"])) == command_text([f"{key}=***"])
    texts = [json.dumps({key.lstrip("+"): password}), f"{{'{key.lstrip('+')}': {password!r}}}"]
    for text in texts:
        secret = json.dumps(password)[1:-1] if text == texts[0] else repr(password)[1:-1]
        assume(secret not in text.replace(secret, "", 1))
        assert secret not in redact_text(text)


@given(st.text(max_size=200))
def test_any_text_is_taken(text):
    redact_text(text)
    redact_command(text)


def test_nothing_of_the_shipped_configs_is_taken_for_a_secret():
    texts = [path.read_text() for path in sorted(shipped().rglob("*.yaml"))]
    assert len(texts) > 50
    for text in texts:
        config = json.loads(json.dumps(yaml.safe_load(text), default=str))
        assert redact(config) == config
