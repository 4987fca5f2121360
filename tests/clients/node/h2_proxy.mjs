// node:http2 as a client of an HTTP/2 proxy (classic CONNECT):  node h2_proxy.mjs PROXY BASE [--denied HOST:PORT]
// PROXY is host:port; the credential is HTTPS_PROXY's, trust is NODE_EXTRA_CA_CERTS.

import http2 from "node:http2";
import tls from "node:tls";

const [proxy, base, flag, denied] = process.argv.slice(2);
const url = new URL(base);
const target = `${url.hostname}:${url.port}`;
const { username, password } = new URL(process.env.HTTPS_PROXY);
const credential = `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;

function check(fact, message) {
  if (!fact) {
    console.error(`not so: ${message}`);
    process.exit(1);
  }
}

const session = http2.connect(`https://${proxy}`);
session.on("error", (error) => check(false, error));

function connect(authority, fields = { "proxy-authorization": credential }) {
  const stream = session.request({ ":method": "CONNECT", ":authority": authority, ...fields }, { endStream: false });
  return new Promise((resolve, reject) => {
    stream.on("error", reject);
    stream.on("response", (head) => resolve({ stream, head }));
  });
}

async function text(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts).toString();
}

async function fetch(path) {
  const { stream, head } = await connect(target);
  check(head[":status"] === 200, `CONNECT is ${head[":status"]}`);
  const inner = tls.connect({ socket: stream, servername: url.hostname });
  inner.write(`GET ${path} HTTP/1.1\r\nHost: ${target}\r\nConnection: close\r\n\r\n`);
  return text(inner);
}

// Many tunnels on one connection, each its own conversation.
const answers = await Promise.all(Array.from({ length: 16 }, (_, n) => fetch(`/echo?n=${n}`)));
answers.forEach((answer, n) => {
  check(answer.startsWith("HTTP/1.1 200 "), answer.slice(0, 100));
  check(answer.includes(`n=${n}`), `the answer to request ${n}`);
});

const anonymous = await connect(target, {});
check(anonymous.head[":status"] === 407, "without a credential it is 407");
check(/Basic/.test(anonymous.head["proxy-authenticate"]), "and it says how");
anonymous.stream.close();

if (flag === "--denied") {
  const { stream, head } = await connect(denied);
  check(head[":status"] === 403, `a denied host is ${head[":status"]}`);
  check(JSON.parse(await text(stream)).reason === "host_not_allowed", "and it says why");
}
session.close();
