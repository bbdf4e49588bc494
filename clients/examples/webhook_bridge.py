"""Posts each message of a room as JSON to an HTTP address. Usage: webhook_bridge.py URL ROOM WEBHOOK

A message is posted until the webhook answers with 2xx, or refuses it for good with 4xx. So the webhook misses none over
restarts of the bridge; after a crash it may receive one again, and recognises it by its id.
"""

import asyncio
import json
import sys
import urllib.error
import urllib.request

from parley_chat import FileStorage, Message, Parley

ANSWER_SECONDS = 10
"""Time limit for the webhook to answer."""
RETRY_SECONDS_MAX = 30.0
"""Maximum time between two attempts."""


def post(webhook: str, message: Message) -> bool:
    """Posts a message. Returns false if it has to be posted again."""
    fields = {"id": message.id, "room": message.to, "from": message.sender, "time": message.time, "body": message.body}
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(webhook, json.dumps(fields).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS):
            return True
    except urllib.error.HTTPError as refusal:
        print(f"{message.id}: {refusal}", file=sys.stderr)
        return 400 <= refusal.code < 500 and refusal.code not in (408, 429)
    except OSError as error:
        print(f"{message.id}: {error}", file=sys.stderr)
        return False


async def main(url: str, name: str, webhook: str) -> None:
    async with Parley(url, nick="webhook-bridge", storage=FileStorage("webhook-bridge.json")) as chat:
        room = await chat.join(name)
        print(f"in {room.name}", flush=True)
        async for message in room:
            pause = 0.1
            while not await asyncio.to_thread(post, webhook, message):
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY_SECONDS_MAX)
    print("session ended:", chat.state)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
