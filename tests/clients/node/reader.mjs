// Node's HTTP server as a reader:  node reader.mjs
// Prints `ready PORT`, then one JSON line when a request's head is read, one when its content has ended, and one for
// what the parser refuses.

import { createHash } from "node:crypto";
import http from "node:http";

const say = (fact) => console.log(JSON.stringify(fact));

function values(raw, wanted) {
  const names = raw.filter((_, at) => at % 2 === 0);
  return names.flatMap((name, at) => (name.toLowerCase() === wanted ? [raw[at * 2 + 1]] : []));
}

const server = http.createServer({ maxHeaderSize: 131072, requestTimeout: 0, headersTimeout: 0 });
server.keepAliveTimeout = 0;
server.on("request", (request, response) => {
  say({ status: 200 });
  const hash = createHash("sha256");
  let length = 0;
  request.on("data", (bytes) => {
    length += bytes.length;
    hash.update(bytes);
  });
  request.on("end", () => {
    const { method, url: target, rawHeaders } = request;
    const [hosts, marks, cookies] = ["host", "x-mark", "cookie"].map((name) => values(rawHeaders, name));
    say({ method, target, hosts, marks, cookies, length, sha256: hash.digest("hex") });
    // Node says nothing of a malformed request that follows an upgrade it ignored: such a connection ends here.
    if (request.headers.upgrade) response.setHeader("Connection", "close");
    response.end("ok");
  });
});
server.on("clientError", (error, socket) => {
  if (error.code?.startsWith("HPE_")) say({ status: 400, code: error.code });
  socket.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
});
server.listen(0, "127.0.0.1", () => console.log(`ready ${server.address().port}`));
