"""Messages arrive at real servers; a hook that is wrong or away is told without its secrets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from notify import hooks
from notify.hooks import Message

MESSAGE = Message("mlstack: mlflow: failed", "expected status 200, got 500 — ü", "failed")


def test_a_web_hook_gets_json(webhook: Any) -> None:
    hooks.send(webhook.url, MESSAGE)
    ((path, said),) = webhook.taken
    assert path == "/hook?token=s3cret"
    assert (said["title"], said["message"], said["type"]) == (MESSAGE.title, MESSAGE.body, "failure")


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_web_hook_that_refuses_is_told(webhook: Any, status: int) -> None:
    webhook.answer(status)
    with pytest.raises(hooks.NotSentError, match=f"expected status 2xx, got {status}"):
        hooks.send(webhook.url, MESSAGE)


def test_a_mail_is_sent(mails: tuple[str, Any]) -> None:
    url, server = mails
    hooks.send(url, MESSAGE)
    ((to, text),) = server.taken
    assert to == ["ana@example.com"]
    assert MESSAGE.title in text


def test_a_topic_gets_it(topic: tuple[str, Callable[[], list[dict[str, Any]]]]) -> None:
    arn, got = topic
    hooks.send(arn, MESSAGE)
    ((said),) = got()
    assert (said["Subject"], said["Message"]) == (MESSAGE.title, MESSAGE.body)


def test_a_topic_that_is_not_there_is_told(topic: tuple[str, Callable[[], list[dict[str, Any]]]]) -> None:
    with pytest.raises(hooks.NotSentError, match="NotFound"):
        hooks.send(topic[0] + "-not", MESSAGE)


@pytest.mark.parametrize("to", ["nowhere", "foo://host/s3cret", "https://", "mailto://user:s3cret@"])
def test_a_place_that_cannot_be_is_refused_without_its_secrets(
    to: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="expected a URL") as refused:
        hooks.check(to)
    assert "s3cret" not in f"{refused.value}{caplog.text}{capsys.readouterr()}"


@pytest.mark.parametrize(
    "to",
    [
        "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
        "https://example.org/hook?token=1",
        "mailto://me:password@example.org?to=ana@example.org",
        "arn:aws:sns:eu-west-1:123456789012:alerts",
    ],
)
def test_places_that_can_be(to: str) -> None:
    hooks.check(to)


def test_one_hook_that_is_away_does_not_stop_the_others(webhook: Any) -> None:
    told = {"title": "a", "body": "b", "state": "ok"}
    messages = [told | {"id": name, "hook": name} for name in ("away", "there")]
    problems = hooks.send_all({"away": "http://127.0.0.1:9/s3cret", "there": webhook.url}, messages)
    assert problems["there"] == ""
    assert problems["away"] == "it could not be reached (ConnectionError)"
    assert "s3cret" not in problems["away"]
    assert len(webhook.taken) == 1
