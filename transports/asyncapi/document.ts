/** The AsyncAPI document: what travels over queues and sockets, as seen from the node, for whoever writes a service. */
import { type ReplyType, replySchemas } from '../../src/domain/action-replies.ts';
import { ACTION_TYPES } from '../../src/domain/action-types.ts';
import { MAX_DELIVERIES, MAX_UNREAD_NOTICES, PRIORITIES, REPLY_TTL_S } from '../../src/domain/queues.ts';
import { TIERS } from '../../src/domain/tiers.ts';
import { SERVICE_OF } from '../../src/ports/peers.ts';
import { ASKED, CALLED_BACK, CLIENT_FRAMES, NODE_FRAMES, peerReply, SAVE } from './catalogue.ts';
import { type Json, messages, ref, schemaRef, schemas } from './messages.ts';

interface AsyncApiOptions {
  /** Of the node. */
  readonly version: string;
  /** Where clients reach the node, `http://host:port` or https; absent: a variable of the document. */
  readonly url?: string;
}

/** Makes an AsyncAPI 3.0.0 document. Throws where `url` is none. */
export function asyncApi({ version, url }: AsyncApiOptions): Json {
  const made = schemas();
  return {
    asyncapi: '3.0.0',
    info: { title: 'Nooble', version, description: DESCRIPTION },
    defaultContentType: 'application/json',
    servers: servers(url),
    channels: Object.fromEntries(Object.entries(CHANNELS).map(([name, each]) => [name, channel(each)])),
    operations: operations(),
    components: {
      schemas: made,
      messages: messages(made),
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } },
    },
  };
}

const DESCRIPTION = `Runs AI agents for many tenants: its queues and its chat socket.

Queues are Redis lists: senders push left (LPUSH), receivers take from the right. A body is JSON or a msgpack map, told
apart by its first byte; a reply has the encoding of its request. \`x-content-types\` says which a message may have.

Actions are delivered at least once. One with a \`tenant_id\` and \`action_id\` seen before is answered as before, and
not done again. What fails ${MAX_DELIVERIES} deliveries goes to \`{queue}:dead\`. A reply copies \`task_id\`,
\`correlation_id\` and \`trace_id\`, and goes to \`callback_queue\`; without one nobody is answered.

Also taken from older senders: \`payload\` for \`data\`, \`callback_queue_name\` for \`callback_queue\`, fields of
\`data\` beside the envelope's, null for absent, \`execution_context\` with tenant, tier and agent.`;

function servers(url: string | undefined): Json {
  const { protocol, host } = url === undefined ? { protocol: 'http:', host: '{host}' } : new URL(url);
  const at = (name: string, address: string, description: string): Json => ({
    variables: { [name]: { default: address, description } },
  });
  return {
    queues: {
      host: '{redis}',
      protocol: 'redis',
      description: 'The Redis of REDIS_URL. Without it a node carries its actions inside the process.',
      ...at('redis', 'localhost:6379', 'Host and port.'),
    },
    sockets: {
      host,
      protocol: protocol === 'https:' ? 'wss' : 'ws',
      description: 'The node’s one port.',
      ...(url === undefined ? at('host', 'localhost:8000', 'Host and port.') : {}),
    },
  };
}

// --- Channels ----------------------------------------------------------------------------------------------------

interface Channel {
  /** Null: named by the request. */
  readonly address: string | null;
  readonly description: string;
  readonly messages: readonly string[];
  readonly on?: 'queues' | 'sockets';
  readonly more?: Json;
}

/** What stands in braces in addresses. */
const PARAMETERS: Readonly<Record<string, Json>> = {
  tier: { enum: TIERS, description: 'The tenant’s.' },
  priority: { enum: PRIORITIES, description: 'High goes first, but not always.' },
  tenant_id: { description: 'Whose they are; messages that name another tenant are refused.' },
  session_id: { description: 'Chosen by the client.' },
  topic: { enum: ['tasks', 'validation', 'templates'], description: 'All are taken alike.' },
  context_id: { description: 'The sender’s own.' },
  action: { enum: ['get_agent_config', 'get_history'], description: 'The last word of the request’s type.' },
  correlation_id: { description: 'The request’s.' },
  holder: { description: 'One start of a node.' },
};

const WORK = [...ACTION_TYPES.keys()].filter((type) => !(type in CALLED_BACK));
const OWN_LIST = ['management.get_agent_config', 'conversation.get_history'];
const SERVICES = [...new Set(Object.values(SERVICE_OF))];

const askedOf = (service: string): readonly string[] => [
  ...ASKED.filter((type) => SERVICE_OF[type] === service),
  ...(service === 'conversation' ? [SAVE] : []),
];
const repliesOf = (isOwn: boolean): readonly string[] =>
  ASKED.filter((type) => OWN_LIST.includes(type) === isOwn).map(peerReply);

const CHANNELS: Readonly<Record<string, Channel>> = {
  work: {
    address: 'execution_service:{tier}:{priority}',
    description: 'What the node does. Tiers share it by their weights, and none is starved.',
    messages: WORK,
  },
  olderSenders: {
    address: 'execution:{context_id}:{tier}',
    description: 'Taken from where EXECUTION_EXTRA_QUEUES names it.',
    messages: WORK,
  },
  callbacks: {
    address: 'agent_execution_service:{tier}:callbacks',
    description: 'Replies of services that know no other queue.',
    messages: Object.keys(CALLED_BACK),
  },
  replies: {
    address: null,
    description: 'The queue that a request names as `callback_queue`.',
    messages: Object.keys(replySchemas),
  },
  orchestrator: {
    address: 'orchestrator:{tenant_id}:callback',
    description: 'A `callback_queue` like any other, save for chat.process: its turn is seen by the sockets.',
    messages: Object.keys(replySchemas),
  },
  ...Object.fromEntries(
    SERVICES.map((service): [string, Channel] => [
      service,
      {
        address: `${service}_service:{tier}:default`,
        description: 'What the node asks, where the service is not embedded in it.',
        messages: askedOf(service),
      },
    ]),
  ),
  responses: {
    address: 'agent_execution_service:responses:{action}:{correlation_id}',
    description: `The reply to one request; it expires after ${REPLY_TTL_S} s.`,
    messages: repliesOf(true),
  },
  nodeReplies: {
    address: 'nooble:replies:{holder}',
    description: 'Replies to all other requests of a node, told apart by `correlation_id`.',
    messages: repliesOf(false),
  },
  agentTasks: {
    address: 'agent-management.{topic}.{tenant_id}',
    description: 'Work on the agents of a tenant, done in the order in which it came.',
    messages: ['agent-management.task'],
  },
  notifications: {
    address: 'agent-management.notifications.{tenant_id}',
    description: `Notices of a tenant; the newest ${MAX_UNREAD_NOTICES} are kept for a day.`,
    messages: ['agent-management.notice'],
  },
  chat: {
    address: '/ws/{tenant_id}/{session_id}',
    description:
      'One session; all its sockets see every frame. Text frames are JSON; with the subprotocol nooble.msgpack all are msgpack.',
    messages: [...Object.keys(CLIENT_FRAMES), ...Object.keys(NODE_FRAMES)],
    on: 'sockets',
    more: {
      bindings: { ws: { method: 'GET', query: schemaRef('SocketQuery'), bindingVersion: '0.1.0' } },
    },
  },
  taskUpdates: {
    address: '/ws/task_updates',
    description:
      'For services. The first frame is {service_token, service_name} within 5 s, answered {"status": "authenticated"}.',
    messages: ['agent-management.notice'],
    on: 'sockets',
  },
};

function channel({ address, description, messages: names, on = 'queues', more = {} }: Channel): Json {
  const inBraces = [...(address ?? '').matchAll(/\{(\w+)\}/g)].map(([, name = '']) => name);
  const parameters = Object.fromEntries(inBraces.map((name) => [name, PARAMETERS[name]]));
  return {
    address,
    description,
    servers: [ref(`servers/${on}`)],
    ...(inBraces.length === 0 ? {} : { parameters }),
    messages: Object.fromEntries(names.map((name) => [name, ref(`components/messages/${name}`)])),
    ...more,
  };
}

// --- Operations --------------------------------------------------------------------------------------------------

const CALLBACK_QUEUE = { location: '$message.payload#/callback_queue' };

const messageRefs = (on: string, names: readonly string[]): readonly Json[] =>
  names.map((name) => ref(`channels/${on}/messages/${name}`));

const operation = (
  action: 'receive' | 'send',
  on: string,
  names: readonly string[],
  summary: string,
  more: Json = {},
): Json => ({
  action,
  channel: ref(`channels/${on}`),
  summary,
  messages: messageRefs(on, names),
  ...more,
});

/** A reply; where its channel has no address, the request says where. */
const reply = (on: string, names: readonly string[]): Json => ({
  reply: {
    ...(CHANNELS[on]?.address === null ? { address: CALLBACK_QUEUE } : {}),
    channel: ref(`channels/${on}`),
    messages: messageRefs(on, names),
  },
});

function operations(): Json {
  const all: Record<string, Json> = {};
  const older = new Set<ReplyType>();
  for (const [type, { summary, replies }] of ACTION_TYPES) {
    const more = replies.length > 0 ? reply('replies', replies) : {};
    all[type] = operation('receive', type in CALLED_BACK ? 'callbacks' : 'work', [type], summary, more);
    for (const each of replies) older.add(each);
  }
  const chat = { security: [ref('components/securitySchemes/bearer')] };
  return {
    ...all,
    olderSenders: operation('receive', 'olderSenders', WORK, 'As on `work`.', reply('replies', [...older])),
    orchestrator: operation('send', 'orchestrator', [...older], 'Replies, where a request names it.'),
    ...Object.fromEntries(
      ASKED.map((type) => {
        const answers = reply(OWN_LIST.includes(type) ? 'responses' : 'nodeReplies', [peerReply(type)]);
        return [type, operation('send', SERVICE_OF[type], [type], 'Asks the service.', answers)];
      }),
    ),
    [SAVE]: operation('send', 'conversation', [SAVE], 'Tells the service of a turn’s messages.'),
    agentTasks: operation('receive', 'agentTasks', ['agent-management.task'], 'Takes work on agents.'),
    notifications: operation('send', 'notifications', ['agent-management.notice'], 'Tells of agents.'),
    chatIn: operation('receive', 'chat', Object.keys(CLIENT_FRAMES), 'What a client says.', chat),
    chatOut: operation('send', 'chat', Object.keys(NODE_FRAMES), 'What its session is told.', chat),
    noticesIn: operation('receive', 'taskUpdates', ['agent-management.notice'], 'A service’s notices.'),
    noticesOut: operation('send', 'taskUpdates', ['agent-management.notice'], 'This node’s notices.'),
  };
}
