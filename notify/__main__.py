"""Send messages to hooks, or check the hooks: what runs in the container of the job `health@send`.

HOOKS in the environment is a JSON object: where each hook leads, by its name. It may hold secrets, so no
output quotes it.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from notify import hooks


def main() -> int:
    """Do what is asked for; the exit status is 1 if a hook can't be used."""
    parser = argparse.ArgumentParser(prog="python3 -m notify", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="whether messages can be sent to each hook; sends none")
    send = commands.add_parser("send", help="send the messages of a file")
    send.add_argument("messages", type=Path, help="JSON, as mlstack-health writes it")
    send.add_argument("answers", type=Path, help="file to write: for each message why it did not arrive")
    arguments = parser.parse_args()
    places: dict[str, str] = json.loads(os.environ.get("HOOKS", "{}"))
    if arguments.command == "check":
        return _check(places)
    asked = json.loads(arguments.messages.read_text())
    # Before, too: on a full disk a message is rather not sent than sent again and again.
    _answer(arguments.answers, asked["run"], {})
    _answer(arguments.answers, asked["run"], hooks.send_all(places, asked["messages"]))
    return 0


def _answer(file: Path, run: str, problems: dict[str, str]) -> None:
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"run": run, "problems": problems}))
    new.replace(file)


def _check(places: dict[str, str]) -> int:
    wrong = 0
    for name, to in places.items():
        try:
            hooks.check(to)
        except ValueError as error:
            wrong = 1
            print(f"health_hooks: {name}: to: {error}", file=sys.stderr)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
