"""Nothing secret passes, and nothing else is lost."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avs_core.tracking import redact

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
TOKEN = "abcdefghijklmnopqrstuvwxyz0123456789AB"


@pytest.mark.parametrize(
    "text",
    [
        f"aws_secret_access_key={SECRET}",
        f"AWS_SECRET_ACCESS_KEY: '{SECRET}'",
        f'{{"secretAccessKey": "{SECRET}"}}',
        f"--password {SECRET}".replace(" ", "="),
        f"mysql://mlflow:{SECRET}@db:3306/mlflow",
        f"https://{SECRET}@host/path",
        f"https://bucket/key?X-Amz-Algorithm=AWS4&X-Amz-Signature={SECRET}&x=1",
        f"https://cdn/film.mp4?Expires=1&Signature={SECRET}&Key-Pair-Id=K",
        f"https://account.blob/film.mp4?sv=2020&sig={SECRET}",
        f"https://host/film.mp4?a=1&token={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f"authorization: basic {SECRET}==",
        f"token ghp_{TOKEN} given".replace(TOKEN, SECRET),
        f"hf_{SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"api-key={SECRET}",
        f"session_token={SECRET}",
    ],
)
def test_secrets_leave_text(text: str) -> None:
    assert SECRET not in redact(text)
    assert "[redacted]" in redact(text)


@pytest.mark.parametrize("key", ["AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE"])
def test_access_keys_are_known_by_their_form(key: str) -> None:
    assert redact(f"denied for {key} today") == "denied for [redacted] today"


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/films/key frame.mp4",
        "https://host/film.mp4?rate=2",
        "/data/tokens/author=me/secretary.mp4",
        "decoding may stand still for at most 60 s (no_progress_s)",
        "run r0123456789abcdef, weights 3b5d5c3712955042212316173ccf37be80000000000000000000000000000000",
        "mailto:someone@example.org",
        "basic ideas",
        "",
    ],
)
def test_innocent_text_stays(text: str) -> None:
    assert redact(text) == text


def test_names_say_what_is_secret_at_any_depth() -> None:
    config = {
        "storage": {"secret": SECRET, "endpoint": f"http://user:{SECRET}@s3:9000", "list": [{"apiKey": SECRET}]},
        "use_auth": True,
        "token_count": 3,
        "rate": 1,
        "password": "",
        "key": None,
    }
    clean = redact(config)
    assert SECRET not in str(clean)
    assert (clean["rate"], clean["token_count"], clean["use_auth"], clean["key"]) == (1, 3, True, None)
    assert clean["storage"]["endpoint"] == "http://[redacted]@s3:9000"


def test_the_secrets_of_this_process_never_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "plain words here")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/tokens/aws")
    assert redact("it said: plain words here.") == "it said: [redacted]."
    assert redact("/var/run/tokens/aws") == "/var/run/tokens/aws"


@given(st.text(string.ascii_letters + string.digits, min_size=8), st.sampled_from(["&", ",", " ", "\n", '"', "'"]))
def test_a_value_ends_where_it_ends(secret: str, end: str) -> None:
    assert redact(f"password={secret}{end}rest") == f"password=[redacted]{end}rest"


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_redacting_twice_changes_nothing(value: object) -> None:
    once = redact(value)
    assert redact(once) == once
