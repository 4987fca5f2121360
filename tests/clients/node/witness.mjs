// Node's HTTP server as a witness:  node witness.mjs
// Prints `ready PORT`, then `seen STATUS BY HOST PATH` for everything it serves, BY being whether a gateway had a hand in it.

import http from "node:http";

const seen = ({ headers, url }) =>
  console.log(`seen 200 ${headers.via ? "gateway" : "nobody"} ${headers.host || "-"} ${url}`);

const server = http.createServer({ maxHeaderSize: 131072 });
server.keepAliveTimeout = 0;
server.on("request", (request, response) => {
  seen(request);
  // Node says nothing of a malformed request that follows an upgrade it ignored: such a connection ends here.
  if (request.headers.upgrade) response.setHeader("Connection", "close");
  response.end("served");
});
server.on("connect", (request, socket) => {
  seen(request);
  socket.on("error", () => {});
  socket.end("HTTP/1.1 200 OK\r\n\r\nserved");
});
server.listen(0, "127.0.0.1", () => console.log(`ready ${server.address().port}`));
