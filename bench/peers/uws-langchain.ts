/** Peers (b) and (d): uWebSockets.js and LangChain, one send a token. Argument: `stream`, `raw` or `agent`. */
import { byAgent, READY, rawChunks, streamed } from './answers.ts';
import { peerModel } from './model.ts';
import { messageOf, serveUws } from './uws-server.ts';

const model = peerModel();
const answers = { stream: () => streamed(model), raw: () => rawChunks(model), agent: () => byAgent(model) };
const wanted = process.argv[2];
const answer = (wanted === 'raw' ? answers.raw : wanted === 'agent' ? answers.agent : answers.stream)();

serveUws({
  ready: JSON.stringify(READY),
  message(socket, text) {
    answer(messageOf(JSON.parse(text)), (frame) => {
      if (socket.getUserData().open) socket.send(JSON.stringify(frame));
    }).catch((error: unknown) => {
      console.error(error);
      process.exit(1);
    });
  },
});
