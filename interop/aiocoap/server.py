"""aiocoap as a sealed server: server.py HOST:PORT CREDENTIALS

Serves the resources of the OSCORE interop specification and /oscore/large,
prints READY when it listens and a line HANDLED for every request that reached
a resource. SIGTERM ends it cleanly; kill -9 leaves its replay window unknown,
so that the next start asks for an Echo (RFC 8613 Appendix B.1.2).
"""

import asyncio
import signal
import sys

import aiocoap
from aiocoap import error, resource
from aiocoap.credentials import CredentialsMap
from aiocoap.oscore_sitewrapper import OscoreSiteWrapper
from aiocoap.transports.oscore import OSCOREAddress
from aiocoap.util import hostportsplit

import words

HELLO = b"Hello World!"
LARGE = bytes(i * 7 % 256 for i in range(20480))
NOTIFY_AFTER = 0.2
NOTIFY_LARGE_AFTER = 2


class Logged(resource.Resource):
    """A resource that says who reached it and refuses what is not sealed."""

    sealed_only = True

    async def render(self, request):
        sealed = isinstance(request.remote, OSCOREAddress)
        if self.sealed_only and not sealed:
            raise error.Unauthorized("use OSCORE")
        print("HANDLED", request.code, self.path, "sealed=" + str(sealed).lower(), flush=True)
        return await super().render(request)


class Open(Logged):
    sealed_only = False

    async def render_get(self, request):
        return aiocoap.Message(payload=HELLO, content_format=0)


class Hello(Logged):
    extra: dict = {}

    async def render_get(self, request):
        return aiocoap.Message(payload=HELLO, content_format=0, **self.extra)


class Hello2(Hello):
    async def render_get(self, request):
        if request.opt.uri_query != ("first=1",):
            raise error.BadRequest("query first=1 expected")
        return aiocoap.Message(payload=HELLO, content_format=0, etag=b"\x2b")


class Hello3(Hello):
    async def render_get(self, request):
        if request.opt.accept != 0:
            raise error.BadRequest("Accept 0 expected")
        return aiocoap.Message(payload=HELLO, content_format=0, max_age=5)


class Hello6(Logged):
    async def render_post(self, request):
        return aiocoap.Message(code=aiocoap.CHANGED, payload=request.payload, content_format=0)


class Hello7(Logged):
    async def render_put(self, request):
        if request.opt.if_none_match:
            return aiocoap.Message(code=aiocoap.PRECONDITION_FAILED)
        if list(request.opt.if_match) != [b"\x7b"]:
            raise error.BadRequest("If-Match 7b expected")
        return aiocoap.Message(code=aiocoap.CHANGED)


class Test(Logged):
    async def render_delete(self, request):
        return aiocoap.Message(code=aiocoap.DELETED)


class Observed(Logged, aiocoap.interfaces.ObservableResource):
    """one, then two, then (if so made) an error that ends the observation."""

    def __init__(self, ends: bool):
        super().__init__()
        self.ends = ends

    async def render_get(self, request):
        return aiocoap.Message(payload=b"one", content_format=0)

    async def add_observation(self, request, observation):
        async def notify():
            await asyncio.sleep(NOTIFY_AFTER)
            note = dict(_mtype=aiocoap.CON, content_format=0)
            observation.trigger(aiocoap.Message(code=aiocoap.CONTENT, payload=b"two", **note))
            if self.ends:
                await asyncio.sleep(NOTIFY_AFTER)
                observation.trigger(
                    aiocoap.Message(code=aiocoap.INTERNAL_SERVER_ERROR, payload=b"Terminate Observe", **note)
                )

        observation.accept(asyncio.create_task(notify()).cancel)


class ObservedLarge(Logged, aiocoap.interfaces.ObservableResource):
    """3000 bytes, then 3999 others, once the first were surely fetched."""

    body = LARGE[:3000]

    async def render_get(self, request):
        return aiocoap.Message(payload=self.body, content_format=42)

    async def add_observation(self, request, observation):
        async def notify():
            await asyncio.sleep(NOTIFY_LARGE_AFTER)
            self.body = LARGE[1:4000]
            observation.trigger()

        observation.accept(asyncio.create_task(notify()).cancel)


class Large(Logged):
    body = LARGE

    async def render_get(self, request):
        return aiocoap.Message(payload=self.body, content_format=42)

    async def render_put(self, request):
        self.body = request.payload
        return aiocoap.Message(code=aiocoap.CHANGED)

    async def render_post(self, request):
        return aiocoap.Message(code=aiocoap.CHANGED, payload=request.payload, content_format=42)


async def main() -> None:
    credentials = CredentialsMap()
    credentials.load_from_dict(words.load(sys.argv[2]))
    site = resource.Site()
    for path, r in {
        "oscore/hello/coap": Open(),
        "oscore/hello/1": Hello(),
        "oscore/hello/2": Hello2(),
        "oscore/hello/3": Hello3(),
        "oscore/hello/6": Hello6(),
        "oscore/hello/7": Hello7(),
        "oscore/test": Test(),
        "oscore/observe1": Observed(ends=True),
        "oscore/observe2": Observed(ends=False),
        "oscore/observe-large": ObservedLarge(),
        "oscore/large": Large(),
    }.items():
        r.path = "/" + path
        site.add_resource(path.split("/"), r)
    context = await aiocoap.Context.create_server_context(
        OscoreSiteWrapper(site, credentials), bind=hostportsplit(sys.argv[1]), server_credentials=credentials
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("READY", flush=True)
    await stop.wait()
    await context.shutdown()
    for c in credentials.values():
        # Writes sequence number and window back as a clean shutdown.
        if hasattr(c, "_destroy") and c.lockfile is not None:
            c._destroy()


asyncio.run(main())
