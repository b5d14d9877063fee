"""What is a secret, and what only looks like one."""

from __future__ import annotations

import pytest

from lifecycle.record.privacy import redact, redact_values


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("http://user:pass@host:5000/x", "http://host:5000/x"),
        ("https://token@host", "https://host"),
        ("postgresql+psycopg://u:p%40ss@db/mlflow?sslmode=require", "postgresql+psycopg://db/mlflow?sslmode=require"),
        ("see 's3://key:secret@bucket/a' and ftp://me@b", "see 's3://bucket/a' and ftp://b"),
        ("https://b.example/a?X-Amz-Signature=abc&part=1", "https://b.example/a?X-Amz-Signature=***&part=1"),
        ("https://b.example/a?part=1&access_token=abc", "https://b.example/a?part=1&access_token=***"),
        ("https://b.example/a?sig=abc", "https://b.example/a?sig=***"),
    ],
)
def test_secrets_go(text: str, safe: str) -> None:
    assert redact(text) == safe


@pytest.mark.parametrize(
    "text", ["someone@example.org", "http://host/@user", "s3://bucket/a?versionId=3", "key=value", "a://b c@d", ""]
)
def test_the_rest_stays(text: str) -> None:
    assert redact(text) == text


def test_nested() -> None:
    assert redact_values({"uris": ["http://u:p@h", 3, None], "more": {"x": "http://u@h"}}) == {
        "uris": ["http://h", 3, None],
        "more": {"x": "http://h"},
    }
