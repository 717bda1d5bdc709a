"""Where messages go: one URL that apprise knows, or the ARN of a topic of SNS."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import apprise
import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:(?P<region>[a-z0-9-]+):\d+:[A-Za-z0-9_-]+")
_ASSET = apprise.AppriseAsset(app_id="mlstack", app_desc="mlstack")
_KINDS = {
    "ok": apprise.NotifyType.SUCCESS,
    "warning": apprise.NotifyType.WARNING,
    "failed": apprise.NotifyType.FAILURE,
}
_SNS = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})
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
        ValueError: It is neither the ARN of a topic nor a URL that apprise knows.
    """
    if not _TOPIC.fullmatch(to):
        _service(to)


def send(to: str, message: Message) -> None:
    """Send a message.

    Raises:
        NotSentError: It did not arrive.
        ValueError: There is no such place.
    """
    topic = _TOPIC.fullmatch(to)
    if topic:
        _publish(to, topic["region"], message)
        return
    service = _service(to)
    with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as said:
        arrived = service.notify(
            title=message.title,
            body=message.body,
            notify_type=_KINDS.get(message.state, apprise.NotifyType.INFO),
        )
        why = said.getvalue().strip()
    if not arrived:
        raise NotSentError(" ".join(why.replace(to, "URL").split()) or "the service did not accept it")


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


def _service(to: str) -> apprise.NotifyBase:
    """Return what apprise makes of a URL; a plain http(s) one that it does not know is sent JSON."""
    logging.getLogger("apprise").disabled = True  # it quotes a URL that it can't parse
    try:
        for url in (to, re.sub(r"^http(s?)://", r"json\1://", to)):
            found = apprise.Apprise.instantiate(url, asset=_ASSET)
            if found:
                return found
    finally:
        logging.getLogger("apprise").disabled = False
    scheme = to.partition(":")[0] if re.match(r"[a-z0-9]+://", to) else "no scheme"
    raise ValueError(f"expected a URL that apprise knows, or the ARN of an SNS topic; got one with {scheme}")


def _publish(topic: str, region: str, message: Message) -> None:
    subject = message.title.encode("ascii", "replace").decode()[:_MAX_SUBJECT]
    try:
        sns = boto3.client("sns", region_name=region, config=_SNS)
        sns.publish(TopicArn=topic, Subject=subject, Message=message.body or message.title)
    except (BotoCoreError, ClientError) as error:
        raise NotSentError(str(error)) from error
