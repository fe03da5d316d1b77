"""aiocoap as a sealed client: client.py BASE CREDENTIALS

BASE is coap://127.0.0.1:PORT, and must be spelled as in the credentials: any
other spelling would go out in plain. Reads commands from standard input; see
words.py. plain=1 sends that one without OSCORE.
"""

import asyncio
import os
import sys

import aiocoap
from aiocoap import Message, error
from aiocoap.oscore import NotAProtectedMessage
from aiocoap.transports.oscore import OSCOREAddress

import words

PATIENCE = float(os.environ.get("PEER_TIMEOUT", "20"))


def build(base: str, method: str, w: dict[str, str]) -> Message:
    uri = base + w["path"]
    if "query" in w:
        uri += "?" + w["query"]
    m = Message(code=getattr(aiocoap, method), uri=uri, payload=bytes.fromhex(w.get("payload", "")))
    if "accept" in w:
        m.opt.accept = int(w["accept"])
    if "format" in w:
        m.opt.content_format = int(w["format"])
    if "if-match" in w:
        m.opt.if_match = [bytes.fromhex(w["if-match"])]
    if "if-none-match" in w:
        m.opt.if_none_match = True
    if "observe" in w:
        m.opt.observe = 0
    return m


def show(kind: str, response: Message) -> None:
    words.show(kind, response, isinstance(response.remote, OSCOREAddress))


async def command(context: aiocoap.Context, base: str, method: str, w: dict[str, str]) -> None:
    request = context.request(build(base, method, w))
    show("ANSWER", await request.response)
    left = int(w.get("observe", 0))
    if left == 0 or request.observation is None or request.observation.cancelled:
        return
    try:
        async for note in request.observation:
            show("NOTE", note)
            left -= 1
            if left == 0:
                break
    except error.NotObservable:
        print("ERROR not observable", flush=True)
    except error.ObservationCancelled:
        pass
    if not request.observation.cancelled:
        request.observation.cancel()


async def main() -> None:
    base, credentials = sys.argv[1:3]
    sealed = await aiocoap.Context.create_client_context()
    sealed.client_credentials.load_from_dict(words.load(credentials))
    plain = await aiocoap.Context.create_client_context()
    print("READY", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        method, w = words.parse(line)
        context = plain if "plain" in w else sealed
        try:
            await asyncio.wait_for(command(context, base, method, w), PATIENCE)
        except NotAProtectedMessage as e:
            words.show("ANSWER", e.plain_message, False)
        except (error.Error, asyncio.TimeoutError) as e:
            print("ERROR", type(e).__name__, str(e).replace("\n", " "), flush=True)
        print("END", flush=True)
    await sealed.shutdown()
    await plain.shutdown()
    for c in sealed.client_credentials.values():
        # Writes the exact sequence number back; without it the next run
        # begins where a crashed one would.
        if hasattr(c, "_destroy") and c.lockfile is not None:
            c._destroy()


asyncio.run(main())
