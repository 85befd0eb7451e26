/** Peer (c): `ws` and LangChain's `model.stream()`, one send a token. */
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';
import { READY, streamed } from './answers.ts';
import { peerModel } from './model.ts';
import { endWithParent, messageOf } from './uws-server.ts';

const answer = streamed(peerModel());
const server = createServer((_, response) => response.end('ok'));

new WebSocketServer({ server, perMessageDeflate: false }).on('connection', (socket) => {
  socket.on('error', () => undefined);
  socket.on('message', (data) => {
    answer(messageOf(JSON.parse(data.toString())), (frame) => socket.send(JSON.stringify(frame))).catch(
      (error: unknown) => {
        console.error(error);
        process.exit(1);
      },
    );
  });
  socket.send(JSON.stringify(READY));
});

server.listen(Number(process.env.PORT), '127.0.0.1', 4096);
endWithParent();
