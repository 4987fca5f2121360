"""requests, httpx and aiohttp as a sandbox uses them: proxy and trust come from the environment alone.

    http_clients.py CLIENT BASE [--denied URL]

BASE is an origin of the tests; --denied is a URL that must be refused with a readable answer.
"""

import argparse
import asyncio
import hashlib
import json
import ssl
import sys

BODY = bytes(range(256)) * 4096  # 1 MiB, every byte value
DIGEST = hashlib.sha256(BODY).hexdigest()
DOWNLOAD = 3_000_001  # not a multiple of any buffer


def check(fact, message):
    if not fact:
        sys.exit(f"not so: {message}")


def check_exchange(client, echo, upload, download):
    """`echo` is the parsed JSON of /echo, `upload` the text of /upload, `download` the bytes of /download."""
    check(echo["request"]["method"] == "GET", f"{client}: GET arrives as GET: {echo}")
    check(upload.split() == [str(len(BODY)), DIGEST], f"{client}: the upload arrives whole: {upload}")
    check(len(download) == DOWNLOAD, f"{client}: {len(download)} bytes of {DOWNLOAD} came back")
    print("digest", hashlib.sha256(download).hexdigest())


def check_refusal(client, status, proxy_status, body):
    check(status == 403, f"{client}: a denied host is 403, not {status}")
    check("error=" in (proxy_status or ""), f"{client}: Proxy-Status says why: {proxy_status}")
    answer = json.loads(body)
    check(answer["reason"] == "host_not_allowed", f"{client}: the reason is given: {answer}")


def with_requests(base, denied):
    import requests

    with requests.Session() as session:
        check_exchange(
            "requests",
            session.get(f"{base}/echo", timeout=20).json(),
            session.post(f"{base}/upload", data=BODY, timeout=20).text,
            session.get(f"{base}/download?bytes={DOWNLOAD}", timeout=20).content,
        )
        chunks = (BODY[i : i + 50_000] for i in range(0, len(BODY), 50_000))
        text = session.post(f"{base}/upload", data=chunks, timeout=20).text
        check(text.split()[1] == DIGEST, f"requests: a chunked upload arrives whole: {text}")
    if denied:
        try:
            answer = requests.get(denied, timeout=20)
            check_refusal("requests", answer.status_code, answer.headers.get("proxy-status"), answer.text)
        except requests.exceptions.ProxyError as error:
            check(denied.startswith("https") and "403" in str(error), f"requests: tunnel refused by 403: {error}")


def with_httpx(base, denied):
    import httpx

    trust = ssl.create_default_context()
    with httpx.Client(verify=trust, timeout=20) as client:
        check_exchange(
            "httpx",
            client.get(f"{base}/echo").json(),
            client.post(f"{base}/upload", content=BODY).text,
            client.get(f"{base}/download?bytes={DOWNLOAD}").content,
        )
        if denied:
            try:
                answer = client.get(denied)
                check_refusal("httpx", answer.status_code, answer.headers.get("proxy-status"), answer.text)
            except httpx.ProxyError as error:
                check(denied.startswith("https") and "403" in str(error), f"httpx: tunnel refused by 403: {error}")


async def with_aiohttp(base, denied):
    import aiohttp

    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
    async with aiohttp.ClientSession(trust_env=True, connector=connector) as session:

        async def text(method, path, **more):
            async with session.request(method, f"{base}{path}", **more) as answer:
                return await answer.read()

        check_exchange(
            "aiohttp",
            json.loads(await text("GET", "/echo")),
            (await text("POST", "/upload", data=BODY)).decode(),
            await text("GET", f"/download?bytes={DOWNLOAD}"),
        )
        if denied:
            try:
                async with session.get(denied) as answer:
                    status = answer.headers.get("proxy-status")
                    check_refusal("aiohttp", answer.status, status, await answer.text())
            except aiohttp.ClientHttpProxyError as error:
                check(denied.startswith("https") and error.status == 403, f"aiohttp: refused by 403: {error}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=["requests", "httpx", "aiohttp"])
    parser.add_argument("base")
    parser.add_argument("--denied")
    given = parser.parse_args()
    if given.client == "aiohttp":
        asyncio.run(with_aiohttp(given.base, given.denied))
    else:
        {"requests": with_requests, "httpx": with_httpx}[given.client](given.base, given.denied)
    print("ok")


main()
