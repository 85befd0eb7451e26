/** Peer (c): Socket.IO and LangChain's `model.stream()`, one event a token, over its WebSocket transport. */
import { createServer } from 'node:http';
import { Server } from 'socket.io';
import { streamed } from './answers.ts';
import { peerModel } from './model.ts';
import { endWithParent, messageOf } from './uws-server.ts';

const answer = streamed(peerModel());
const server = createServer((request, response) => {
  if (request.url === '/ready') response.end('ok');
});

new Server(server, { transports: ['websocket'], serveClient: false }).on('connection', (socket) => {
  socket.on('chat.send', (data) => {
    answer(messageOf(data), (frame) => void socket.emit(frame.type, frame)).catch((error: unknown) => {
      console.error(error);
      process.exit(1);
    });
  });
});

server.listen(Number(process.env.PORT), '127.0.0.1', 4096);
endWithParent();
