/** What frames and DomainActions cost on the wire: JSON, msgpackr plain and with shared structures, zod, and ours. */
import { randomUUID } from 'node:crypto';
import { Packr } from 'msgpackr';
import { domainActionSchema, parseDomainAction } from '../src/domain/domain-action.ts';
import { clientFrameSchema, type Frame } from '../src/domain/frames.ts';
import {
  createPeerCodec,
  decodeAction,
  decodeClientFrame,
  encodeAction,
  encodeFrame,
} from '../transports/wire/codec.ts';
import { benchMain, interleaved, progress } from './kit/bench-main.ts';
import { nsPerCall } from './kit/micro.ts';
import type { BenchOptions } from './kit/options.ts';
import { type BenchFindings, compared, type Figures, medianOf, tableOf } from './kit/result.ts';

/** One way to write a value and to read it back. */
interface Format {
  readonly name: string;
  readonly encode?: (i: number) => string | Uint8Array;
  readonly decode?: (i: number) => unknown;
}

const VARIANTS = 64;
const at = <T>(values: readonly T[], i: number): T => {
  const value = values[i % VARIANTS];
  if (value === undefined) throw new Error('no variant');
  return value;
};
const variants = <T>(make: (i: number) => T): readonly T[] =>
  Array.from({ length: VARIANTS }, (_, i) => make(i));

const plain = new Packr({ useRecords: false, variableMapSize: true });
const shared = new Packr({ structures: [], maxSharedStructures: 32 });
const AT_MS = Date.UTC(2026, 0, 1);
const newId = (): string => 'unused';

// --- A delta on its way to a client ------------------------------------------------------------------------

const frames = variants(
  (i): Frame => ({
    type: 'chat.delta',
    seq: 100 + i,
    // A burst: eight frames share a millisecond.
    atMs: AT_MS + (i >> 3),
    taskId: randomUUID(),
    data: { content: `token ${i} ` },
  }),
);
const wire = frames.map(({ type, seq, atMs, taskId, data }) => ({
  type,
  seq,
  ts: new Date(atMs).toISOString(),
  task_id: taskId,
  data,
}));
const packed = {
  json: wire.map((frame) => JSON.stringify(frame)),
  plain: wire.map((frame) => Buffer.from(plain.pack(frame))),
  shared: wire.map((frame) => Buffer.from(shared.pack(frame))),
};

const FRAME_FORMATS: readonly Format[] = [
  { name: 'ours, json', encode: (i) => encodeFrame(at(frames, i), 'json') },
  { name: 'ours, msgpack', encode: (i) => encodeFrame(at(frames, i), 'msgpack') },
  {
    name: 'JSON',
    encode: (i) => JSON.stringify(at(wire, i)),
    decode: (i) => JSON.parse(at(packed.json, i)),
  },
  {
    name: 'msgpackr, plain maps',
    encode: (i) => plain.pack(at(wire, i)),
    decode: (i) => plain.unpack(at(packed.plain, i)),
  },
  {
    name: 'msgpackr, shared structures',
    encode: (i) => shared.pack(at(wire, i)),
    decode: (i) => shared.unpack(at(packed.shared, i)),
  },
];

// --- A message from a client ---------------------------------------------------------------------------------

const said = variants((i) => ({
  type: 'chat.send',
  message: `What is the tide at ${i} o'clock, and may I sail?`,
  task_id: randomUUID(),
  on_busy: 'enqueue',
}));
const saidJson = said.map((frame) => Buffer.from(JSON.stringify(frame)));
const saidPacked = said.map((frame) => Buffer.from(plain.pack(frame)));

const CLIENT_FORMATS: readonly Format[] = [
  {
    name: 'ours, json: bounds, depth, parse, zod',
    decode: (i) => decodeClientFrame(at(saidJson, i), 'json'),
  },
  { name: 'ours, msgpack: the same', decode: (i) => decodeClientFrame(at(saidPacked, i), 'msgpack') },
  { name: 'JSON.parse alone', decode: (i) => JSON.parse(at(saidJson, i).toString()) },
  { name: 'msgpackr alone', decode: (i) => plain.unpack(at(saidPacked, i)) },
  { name: 'zod alone', decode: (i) => clientFrameSchema.parse(at(said, i)) },
];

// --- A DomainAction between nodes and services ------------------------------------------------------------------

const actions = variants((i) =>
  domainActionSchema.parse({
    action_id: randomUUID(),
    action_type: 'execution.agent_run',
    task_id: randomUUID(),
    tenant_id: `tenant-${i}`,
    tenant_tier: 'professional',
    session_id: randomUUID(),
    user_id: `user-${i}`,
    agent_id: 'default',
    correlation_id: randomUUID(),
    data: {
      input: `What is the tide at ${i} o'clock, and may I sail?`,
      conversation_id: randomUUID(),
      execution_params: { max_iterations: 5, max_execution_time: 60 },
      user_info: { name: 'Ada', locale: 'en-GB', roles: ['sailor', 'owner'] },
    },
    metadata: { source: 'bench', attempt: 1 },
    callback_queue: `orchestrator:tenant-${i}:callback`,
    timestamp: new Date(AT_MS + i).toISOString(),
  }),
);
const peer = createPeerCodec();
const actionsPacked = {
  json: actions.map((action) => Buffer.from(encodeAction(action, 'json'))),
  msgpack: actions.map((action) => Buffer.from(encodeAction(action, 'msgpack'))),
  peer: actions.map((action) => Buffer.from(peer.encode(action))),
  plain: actions.map((action) => Buffer.from(plain.pack(action))),
  shared: actions.map((action) => Buffer.from(shared.pack(action))),
};

const ACTION_FORMATS: readonly Format[] = [
  {
    name: 'ours, json, checked',
    encode: (i) => encodeAction(at(actions, i), 'json'),
    decode: (i) => decodeAction(at(actionsPacked.json, i), AT_MS, newId),
  },
  {
    name: 'ours, msgpack, checked',
    encode: (i) => encodeAction(at(actions, i), 'msgpack'),
    decode: (i) => decodeAction(at(actionsPacked.msgpack, i), AT_MS, newId),
  },
  {
    name: 'ours, node to node, checked',
    encode: (i) => peer.encode(at(actions, i)),
    decode: (i) => peer.decode(at(actionsPacked.peer, i), AT_MS, newId),
  },
  {
    name: 'JSON',
    encode: (i) => Buffer.from(JSON.stringify(at(actions, i))),
    decode: (i) => JSON.parse(at(actionsPacked.json, i).toString()),
  },
  {
    name: 'msgpackr, plain maps',
    encode: (i) => plain.pack(at(actions, i)),
    decode: (i) => plain.unpack(at(actionsPacked.plain, i)),
  },
  {
    name: 'msgpackr, shared structures',
    encode: (i) => shared.pack(at(actions, i)),
    decode: (i) => shared.unpack(at(actionsPacked.shared, i)),
  },
  { name: 'zod alone', decode: (i) => domainActionSchema.parse(at(actions, i)) },
  { name: 'parseDomainAction alone', decode: (i) => parseDomainAction(at(actions, i), AT_MS, newId) },
];

const TABLES = [
  { title: 'A chat.delta frame', formats: FRAME_FORMATS },
  { title: 'A chat.send frame', formats: CLIENT_FORMATS },
  { title: 'A DomainAction', formats: ACTION_FORMATS },
] as const;

function measure({ encode, decode }: Format, ms: number): Figures {
  return {
    'encode, ns': encode ? nsPerCall(encode, ms) : Number.NaN,
    'decode, ns': decode ? nsPerCall(decode, ms) : Number.NaN,
    bytes: encode ? Buffer.byteLength(encode(0)) : Number.NaN,
  };
}

async function run(options: BenchOptions): Promise<BenchFindings> {
  // Each format's figures are a tenth of a round: there are many formats.
  const ms = options.roundMs / 10;
  const tables = [];
  for (const { title, formats } of TABLES) {
    for (const format of formats) measure(format, ms);
    const rounds = await interleaved(formats, options.rounds, (format) => measure(format, ms));
    tables.push(tableOf(title, ['encode, ns', 'decode, ns', 'bytes'], rounds));
    progress(title);
  }
  const [frame, client, action] = tables;
  if (!frame || !client || !action) throw new Error('a table is missing');
  const column = 'decode, ns';
  return {
    tables,
    comparisons: [
      ...compared(
        'encoding a frame over JSON.stringify',
        medianOf(frame, 'ours, json', 'encode, ns') / medianOf(frame, 'JSON', 'encode, ns'),
      ),
      ...compared(
        'reading a chat.send, checked, over JSON.parse',
        medianOf(client, 'ours, json: bounds, depth, parse, zod', column) /
          medianOf(client, 'JSON.parse alone', column),
      ),
      ...compared(
        'bytes of an action between nodes over JSON',
        medianOf(action, 'ours, node to node, checked', 'bytes') / medianOf(action, 'JSON', 'bytes'),
      ),
    ],
    notes: [],
  };
}

await benchMain({ name: 'codec', rounds: 5, seconds: 2, run });
