/** Peers (b) and (d): uWebSockets.js and one way to ask a model, named by the argument; one send a token. */
import { type Answer, byAgent, READY, rawChunks, streamed } from './answers.ts';
import { byDispatch, byOpenai, timeTool } from './completions.ts';
import { ENDPOINT, peerModel } from './model.ts';
import { messageOf, serveUws } from './uws-server.ts';

const ways: Readonly<Record<string, () => Answer>> = {
  stream: () => streamed(peerModel()),
  raw: () => rawChunks(peerModel()),
  agent: () => byAgent(peerModel()),
  'agent-with-tool': () => byAgent(peerModel(), [timeTool]),
  openai: () => byOpenai(ENDPOINT),
  dispatch: () => byDispatch(ENDPOINT),
};
const wanted = process.argv[2] ?? '';
const answer = ways[wanted]?.();
if (!answer) throw new Error(`no way ${wanted}; there are ${Object.keys(ways).join(', ')}`);

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
