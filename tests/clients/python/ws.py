"""WebSockets by the `websockets` library, server and client.

    ws.py serve [CERTIFICATE KEY]     an echo server on a free port; prints `ready PORT`
    ws.py use URI                     proxy and trust come from the environment
"""

import asyncio
import os
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


def check(fact, message):
    if not fact:
        sys.exit(f"not so: {message}")


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def run_server(files):
    context = None
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
    async with serve(echo, "127.0.0.1", 0, ssl=context, max_size=None) as server:
        print("ready", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


async def run_client(uri):
    more = {"ssl": ssl.create_default_context()} if uri.startswith("wss:") else {}
    async with connect(uri, max_size=None, open_timeout=20, **more) as connection:
        for message in ["text", "ü" * 70_000, b"", os.urandom(1_000_000)]:
            await connection.send(message)
            answer = await asyncio.wait_for(connection.recv(), 20)
            check(answer == message, f"a message of {len(message)} comes back as sent")
        latency = await (await connection.ping())
        check(latency < 20, "a ping is answered")
    check(connection.close_code == 1000, f"closed in order: {connection.close_code}")
    print("ok")


if sys.argv[1] == "serve":
    asyncio.run(run_server(sys.argv[2:]))
else:
    asyncio.run(run_client(sys.argv[2]))
