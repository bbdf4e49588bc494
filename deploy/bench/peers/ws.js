// A minimal chat: npm `ws`, and one Redis channel for each room. One process is one node.
// It has no history, acks or unique names, and only the order of Redis: the smallest comparable service.
// Protocol: {"join":room} -> {"joined":room}; {"ping":1} -> {"pong":1};
// {"to":room,"body":text} -> {"room":room,"body":text} to every member.
//
//   node ws.js REDIS_PORT      prints {"listening":true,"ws":"127.0.0.1:PORT"} when it listens
'use strict';
const { WebSocketServer } = require('ws');
const Redis = require('ioredis');

const redis = { host: '127.0.0.1', port: Number(process.argv[2]), noDelay: true };
const publisher = new Redis(redis);
const subscriber = new Redis(redis);
const rooms = new Map(); // room -> Set of its members on this node

subscriber.on('message', (room, text) => {
  for (const member of rooms.get(room) ?? []) member.send(text);
});

async function join(socket, room) {
  if (!rooms.has(room)) rooms.set(room, new Set());
  rooms.get(room).add(socket);
  socket.rooms.push(room);
  await subscriber.subscribe(room);
  socket.send(JSON.stringify({ joined: room }));
}

function leave(socket, room) {
  const members = rooms.get(room);
  if (members === undefined) return;
  members.delete(socket);
  if (members.size === 0) {
    rooms.delete(room);
    subscriber.unsubscribe(room);
  }
}

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, backlog: 4096, perMessageDeflate: false });
server.on('connection', (socket) => {
  socket.rooms = [];
  socket.on('message', (data) => {
    const message = JSON.parse(data);
    if (message.to !== undefined) publisher.publish(message.to, JSON.stringify({ room: message.to, body: message.body }));
    else if (message.join !== undefined) join(socket, message.join);
    else if (message.ping !== undefined) socket.send('{"pong":1}');
  });
  socket.on('close', () => socket.rooms.forEach((room) => leave(socket, room)));
  socket.on('error', () => {});
});
server.on('listening', () => {
  console.log(JSON.stringify({ listening: true, ws: `127.0.0.1:${server.address().port}` }));
});
