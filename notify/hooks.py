"""Where messages go: a URL that apprise knows, any other http(s) URL, or the ARN of a topic of SNS."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import apprise
import boto3
import requests
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:(?P<region>[a-z0-9-]+):\d+:[A-Za-z0-9_-]+")
_PLAIN = re.compile(r"https?://[^/\s]+\S*")
_ASSET = apprise.AppriseAsset(app_id="mlstack", app_desc="mlstack")
_KINDS = {
    "ok": apprise.NotifyType.SUCCESS,
    "warning": apprise.NotifyType.WARNING,
    "failed": apprise.NotifyType.FAILURE,
}
_SNS = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})
_HOOK_SECONDS = (5, 20)  # to connect, and to answer
_MAX_SUBJECT = 100  # SNS's own limit


class NotSentError(Exception):
    """A message did not arrive; the text says why, without the hook's URL, which may hold a secret."""


@dataclass(frozen=True)
class Message:
    """What a hook is told.

    Attributes:
        title: One line.
        body: The text.
        state: `ok`, `warning` or `failed`, which some services show as a colour.
    """

    title: str
    body: str
    state: str = ""


def check(to: str) -> None:
    """Refuse a place that no message can be sent to.

    Raises:
        ValueError: It is none of what the module names.
    """
    if not _TOPIC.fullmatch(to) and not _service(to) and not _PLAIN.fullmatch(to):
        scheme = to.partition(":")[0] if re.match(r"[a-z0-9]+://", to) else "no scheme"
        raise ValueError(
            f"expected a URL that apprise knows, or the ARN of an SNS topic; got one with {scheme}"
        )


def send(to: str, message: Message) -> None:
    """Send a message.

    Raises:
        NotSentError: It did not arrive.
        ValueError: There is no such place.
    """
    check(to)
    topic, service = _TOPIC.fullmatch(to), _service(to)
    if topic:
        _publish(to, topic["region"], message)
    elif service:
        _notify(service, to, message)
    else:
        _post(to, message)


def send_all(places: Mapping[str, str], messages: list[dict[str, Any]]) -> dict[str, str]:
    """Send each message, also after one has failed.

    Args:
        places: For each hook's name, where it leads.
        messages: Each with its `id`, its `hook`, `title`, `body` and `state`.

    Returns:
        By the messages' ids, why each did not arrive; empty for those that did.
    """
    problems = {}
    for told in messages:
        problems[told["id"]] = ""
        try:
            send(places[told["hook"]], Message(told["title"], told["body"], told["state"]))
        except (NotSentError, ValueError) as error:
            problems[told["id"]] = str(error)
        except Exception as error:  # noqa: BLE001 - a plug-in of apprise may raise anything; the text may hold the URL
            problems[told["id"]] = f"unexpected {type(error).__name__}"
    return problems


def _service(to: str) -> apprise.NotifyBase | None:
    """Return what apprise makes of a URL; None if it does not know it."""
    logging.getLogger("apprise").disabled = True  # it quotes a URL that it can't parse
    try:
        return apprise.Apprise.instantiate(to, asset=_ASSET)
    finally:
        logging.getLogger("apprise").disabled = False


def _notify(service: apprise.NotifyBase, to: str, message: Message) -> None:
    with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as said:
        arrived = service.notify(
            title=message.title,
            body=message.body,
            notify_type=_KINDS.get(message.state, apprise.NotifyType.INFO),
        )
        why = said.getvalue().strip()
    if not arrived:
        raise NotSentError(" ".join(why.replace(to, "URL").split()) or "the service did not accept it")


def _post(to: str, message: Message) -> None:
    """Send JSON as apprise does, which would drop what the URL says after its `?`."""
    kind = _KINDS.get(message.state, apprise.NotifyType.INFO).value
    content = {"version": "1.0", "title": message.title, "message": message.body, "type": kind}
    try:
        answer = requests.post(to, json=content, timeout=_HOOK_SECONDS, allow_redirects=False)
    except requests.RequestException as error:  # its text quotes the URL
        raise NotSentError(f"it could not be reached ({type(error).__name__})") from None
    if not 200 <= answer.status_code < 300:
        raise NotSentError(f"expected status 2xx, got {answer.status_code}")


def _publish(topic: str, region: str, message: Message) -> None:
    subject = message.title.encode("ascii", "replace").decode()[:_MAX_SUBJECT]
    try:
        sns = boto3.client("sns", region_name=region, config=_SNS)
        sns.publish(TopicArn=topic, Subject=subject, Message=message.body or message.title)
    except (BotoCoreError, ClientError) as error:
        raise NotSentError(str(error)) from error
