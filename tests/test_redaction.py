"""Credentials are taken out of text, and the rest of it stays."""

from __future__ import annotations

import time

import pytest

from fitstream.redaction import redacted


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://me:pw@host/a.jpg", "https://***@host/a.jpg"),
        ("https://token@host/a.jpg", "https://***@host/a.jpg"),
        ("https://me:p@w@host/a.jpg", "https://***@host/a.jpg"),
        ("s3://AKIA:a/b+c=@bucket/key", "s3://***@bucket/key"),
        ("postgresql+psycopg://me:pw@host:5432/db", "postgresql+psycopg://***@host:5432/db"),
        ("/data/https:/me:pw@host/a.jpg", "/data/https:/***@host/a.jpg"),
        ("HTTPS://ME:PW@HOST/", "HTTPS://***@HOST/"),
        ("'http://a:1@h/x' and b'http://b:2@h/y'", "'http://***@h/x' and b'http://***@h/y'"),
        ("https://h/x?size=3&token=abc&page=2", "https://h/x?size=3&token=***&page=2"),
        (
            "https://h/x?X-Amz-Credential=a%2Fb&X-Amz-Signature=c",
            "https://h/x?X-Amz-Credential=***&X-Amz-Signature=***",
        ),
        (
            "https://h/x?AWSAccessKeyId=a&Signature=b&Expires=1",
            "https://h/x?AWSAccessKeyId=***&Signature=***&Expires=1",
        ),
        (
            "Sample 3 (https://h/x?token=a.b): no, see https://h/y?key=c.",
            "Sample 3 (https://h/x?token=***): no, see https://h/y?key=***.",
        ),
        ("https://h/x?sv=1&sig=a%2B", "https://h/x?sv=1&sig=***"),
        ("https://h/x?key=a;api_key=b#access_token=c", "https://h/x?key=***;api_key=***#access_token=***"),
    ],
)
def test_credentials_are_taken_out(text: str, left: str) -> None:
    assert redacted(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/data/photos/cats/1.jpg",
        "https://host:8080/a/me@home.jpg",
        "https://host/a.jpg?size=3&page=2",
        "me@example.org: key=3, token=4",
        "'path': 'C:/a@b', x: y/z @ 3",
        "batch=64 shape=(2, 3)",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize("part", ["a", "a://a:", "?token", "https://", ":/", "&x[", "?auth=", "a:/b@"])
def test_long_text_takes_linear_time(part: str) -> None:
    begun = time.process_time()
    redacted(part * (200_000 // len(part)) + " @ = :/")
    assert time.process_time() - begun < 30
