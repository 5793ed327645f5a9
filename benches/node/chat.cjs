// A chat of one room as the examples of the package `ws` do it: each message goes to each client in turn.
// `node chat.cjs PORT_FILE`, or `--check` to say whether it could be started.
const { WebSocketServer, WebSocket } = require("ws");
const { renameSync, writeFileSync } = require("node:fs");

const portFile = process.argv[2];
if (portFile !== "--check") {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false });
  server.on("connection", (socket) => {
    socket.on("error", () => socket.terminate());
    socket.on("message", (data) => {
      for (const client of server.clients) {
        if (client.readyState === WebSocket.OPEN) client.send(data, { binary: false });
      }
    });
  });
  server.on("listening", () => {
    writeFileSync(`${portFile}.new`, String(server.address().port));
    renameSync(`${portFile}.new`, portFile);
  });
}
