// Socket.IO as in its documentation: rooms, and the Redis adapter between nodes. WebSocket only, without compression,
// which is its fast setting. One process is one node.
// Events: "join" room, acknowledged; "say" room text -> "m" text to every member; "beat", acknowledged.
//
//   node socketio.js REDIS_PORT      prints {"listening":true,"ws":"127.0.0.1:PORT"} when it listens
'use strict';
const http = require('http');
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/redis-adapter');
const Redis = require('ioredis');

const redis = { host: '127.0.0.1', port: Number(process.argv[2]), noDelay: true };
const server = http.createServer();
const io = new Server(server, {
  adapter: createAdapter(new Redis(redis), new Redis(redis)),
  transports: ['websocket'],
  perMessageDeflate: false,
});

io.on('connection', (socket) => {
  socket.on('join', async (room, done) => {
    await socket.join(room);
    done();
  });
  socket.on('say', (room, text) => io.to(room).emit('m', text));
  socket.on('beat', (done) => done());
});

server.listen({ host: '127.0.0.1', port: 0, backlog: 4096 }, () => {
  console.log(JSON.stringify({ listening: true, ws: `127.0.0.1:${server.address().port}` }));
});
