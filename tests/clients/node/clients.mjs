// undici and https-proxy-agent as a sandbox uses them:  node clients.mjs CLIENT BASE [--denied URL]
// Proxy and trust come from the environment (HTTPS_PROXY, NODE_EXTRA_CA_CERTS).

import { createHash } from "node:crypto";
import https from "node:https";
import { HttpsProxyAgent } from "https-proxy-agent";
import { EnvHttpProxyAgent, ProxyAgent, request } from "undici";

const [client, base, flag, denied] = process.argv.slice(2);
const body = Buffer.alloc(1_000_003, "node through the gate ");
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");
const wanted = 2_000_003;

function check(fact, message) {
  if (!fact) {
    console.error(`not so: ${message}`);
    process.exit(1);
  }
}

function dispatcher() {
  if (client === "env") return new EnvHttpProxyAgent();
  const url = new URL(process.env.HTTPS_PROXY ?? "http://absent");
  const userinfo = decodeURIComponent(`${url.username}:${url.password}`);
  const token = `Basic ${Buffer.from(userinfo).toString("base64")}`;
  return new ProxyAgent({ uri: url.origin, token });
}

async function undici() {
  const agent = dispatcher();
  const call = async (path, options = {}) => {
    const answer = await request(path.startsWith("http") ? path : base + path, { dispatcher: agent, ...options });
    return { status: answer.statusCode, bytes: Buffer.from(await answer.body.arrayBuffer()) };
  };
  await exchange(call);
  if (flag === "--denied") {
    const outcome = await call(denied).then(
      (answer) => `${answer.status} ${answer.bytes}`,
      (error) => `${error.message} ${error.cause?.message ?? ""}`,
    );
    check(outcome.includes("403"), `a denied host is refused with 403: ${outcome}`);
  }
  await agent.close();
}

async function proxyAgent() {
  const agent = new HttpsProxyAgent(process.env.HTTPS_PROXY, { keepAlive: true });
  const call = (path, { method = "GET", body: sent } = {}) =>
    new Promise((resolve, reject) => {
      const outgoing = https.request(path.startsWith("http") ? path : base + path, { agent, method }, (answer) => {
        const parts = [];
        answer.on("data", (part) => parts.push(part));
        answer.on("error", reject);
        answer.on("end", () => resolve({ status: answer.statusCode, bytes: Buffer.concat(parts) }));
      });
      outgoing.on("error", reject);
      outgoing.end(sent);
    });
  await exchange(call);
  if (flag === "--denied") {
    const answer = await call(denied);
    check(answer.status === 403, `a denied host is refused with 403: ${answer.status}`);
    check(JSON.parse(answer.bytes).reason === "host_not_allowed", `with its reason: ${answer.bytes}`);
  }
  agent.destroy();
}

async function exchange(call) {
  const echo = JSON.parse((await call("/echo")).bytes);
  check(echo.request.method === "GET", "GET arrives as GET");
  const upload = (await call("/upload", { method: "POST", body })).bytes.toString().split(/\s/);
  check(upload[0] === `${body.length}` && upload[1] === sha256(body), `the upload arrives whole: ${upload}`);
  const download = (await call(`/download?bytes=${wanted}`)).bytes;
  check(download.length === wanted, `${download.length} bytes of ${wanted} came back`);
  console.log("digest", sha256(download));
}

await (client === "https-proxy-agent" ? proxyAgent() : undici());
console.log("ok");
