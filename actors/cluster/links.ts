/** The links of one boot to all others: numbers what goes out, notices what is missing, and keeps the questions under way. */
import type { Boot } from '../../src/ports/cluster.ts';
import type { Bundle, LinkAnswer, LinkItem, RequestItem } from '../../src/ports/links.ts';
import {
  type IncomingState,
  incoming,
  MANY_UNREAD,
  mayAsk,
  newOutgoing,
  type OutgoingMessage,
  type OutgoingState,
  outgoing,
  roughBytes,
} from './link.ts';

/** How long a question waits for its answer. */
export const QUESTION_MS = 3_000;
/** Questions under way to one peer. */
export const MAX_QUESTIONS = 2_000;

/**
 * Why there is no answer. `away`: Redis is, or the peer's link; it may have been heard all the same. `full`: too much
 * waits there already, and it was not asked. `silent`: no answer in time. `gone`: that boot is dead.
 */
export interface LostAnswer {
  readonly type: 'lost';
  readonly why: 'away' | 'full' | 'silent' | 'gone';
}

export type LinkOutcome = LinkAnswer | LostAnswer;
export type Answered = (outcome: LinkOutcome) => void;

export interface LinksDeps {
  readonly boot: Boot;
  /** Puts a bundle into an inbox; calls back, later, with how many wait there, undefined where it can not. */
  readonly push: (to: Boot, bundle: Bundle, done: (unread: number | undefined) => void) => void;
  readonly after: (ms: number, act: () => void) => void;
  /** Ms, on a clock that never goes back. */
  readonly now: () => number;
  /** Random. */
  readonly newLinkId: () => string;
  /** Something from there is missing. Told before the first item that came after it. */
  readonly onTorn: (from: Boot) => void;
  /** Anything but requests, replies and ticks. */
  readonly onItem: (from: Boot, item: LinkItem) => void;
  /** To be answered once, whenever; false: a question of a kind that is not known here. */
  readonly onRequest: (from: Boot, request: RequestItem, answer: (answer: LinkAnswer) => void) => boolean;
}

export interface LinkStats {
  /** Peers that something was sent to. */
  readonly peers: number;
  /** Questions that wait for an answer. */
  readonly questions: number;
  /** The fullest inbox, in bundles. */
  readonly unread: number;
  /** Since the start: gaps that were found, bundles that came twice, items that could not be sent. */
  readonly torn: number;
  readonly repeated: number;
  readonly undelivered: number;
}

/**
 * Order: items that one boot sends another come in that order, though some may be missing. A question is answered
 * exactly once, by its peer or with `lost`; `lost` may come before `ask` returns.
 */
export interface Links {
  ask(to: Boot, of: string, body: unknown, answered: Answered): void;
  send(to: Boot, item: LinkItem): void;
  heard(bundle: Bundle): void;
  /**
   * A number for each of these peers, for those that owe an answer, and for those that could not be reached or did not
   * read: it shows what was lost, and that they can be reached again. Once a second.
   */
  tick(watched: Iterable<Boot>): void;
  /** For how long nothing was heard of that boot, at most since something was sent there first; 0 where neither was. */
  silentMs(boot: Boot): number;
  /** That boot is dead: what it was asked is lost. */
  lose(boot: Boot): void;
  stats(): LinkStats;
}

interface Question {
  readonly to: Boot;
  readonly answered: Answered;
}

export function createLinks(deps: LinksDeps): Links {
  const ways = new Map<Boot, OutgoingState>();
  const heard = new Map<Boot, IncomingState>();
  const questions = new Map<number, Question>();
  const asked = new Map<Boot, number>();
  /** When something was heard last, or was sent first. */
  const heardAtMs = new Map<Boot, number>();
  const counts = { torn: 0, repeated: 0, undelivered: 0 };
  let lastQuestion = 0;

  const wayTo = (to: Boot): OutgoingState => ways.get(to) ?? newOutgoing(deps.newLinkId());

  function take(to: Boot, message: OutgoingMessage): void {
    const [state, effects] = outgoing(wayTo(to), message);
    ways.set(to, state);
    if (!heardAtMs.has(to)) heardAtMs.set(to, deps.now());
    for (const effect of effects)
      if (effect.type === 'undelivered') undelivered(effect.items);
      else push(to, { from: deps.boot, linkId: state.linkId, n: effect.n, items: effect.items });
  }

  function push(to: Boot, bundle: Bundle): void {
    deps.push(to, bundle, (unread) => {
      // A link that was forgotten meanwhile counts anew, under another id.
      if (ways.get(to)?.linkId !== bundle.linkId) return;
      take(to, unread === undefined ? { type: 'failed' } : { type: 'pushed', unread });
    });
  }

  function undelivered(items: readonly LinkItem[]): void {
    counts.undelivered += items.length;
    for (const item of items) if (item.kind === 'request') settle(item.id, { type: 'lost', why: 'away' });
  }

  function settle(id: number, outcome: LinkOutcome): void {
    const question = questions.get(id);
    if (!question) return;
    questions.delete(id);
    const left = (asked.get(question.to) ?? 1) - 1;
    if (left > 0) asked.set(question.to, left);
    else asked.delete(question.to);
    question.answered(outcome);
  }

  function received(from: Boot, item: LinkItem): void {
    if (item.kind === 'tick') return;
    if (item.kind === 'reply') return settleFrom(from, item.id, item.answer);
    if (item.kind !== 'request') return deps.onItem(from, item);
    const answer = (given: LinkAnswer): void =>
      take(from, sent({ kind: 'reply', id: item.id, answer: given }));
    if (!deps.onRequest(from, item, answer)) answer({ type: 'unsupported' });
  }

  /** Only whoever was asked may answer. */
  function settleFrom(from: Boot, id: number, answer: LinkAnswer): void {
    if (questions.get(id)?.to === from) settle(id, answer);
  }

  return {
    ask(to, of, body, answered) {
      const underWay = asked.get(to) ?? 0;
      const may = underWay >= MAX_QUESTIONS ? 'full' : mayAsk(wayTo(to));
      if (may !== 'yes') return answered({ type: 'lost', why: may });
      lastQuestion += 1;
      const id = lastQuestion;
      questions.set(id, { to, answered });
      asked.set(to, underWay + 1);
      take(to, sent({ kind: 'request', id, of, body }));
      deps.after(QUESTION_MS, () => settle(id, { type: 'lost', why: 'silent' }));
    },
    send: (to, item) => take(to, sent(item)),
    heard({ from, linkId, n, items }) {
      const [state, arrival] = incoming(heard.get(from), { linkId, n });
      heard.set(from, state);
      heardAtMs.set(from, deps.now());
      if (arrival === 'repeated') counts.repeated += 1;
      if (arrival === 'repeated') return;
      if (arrival === 'torn') {
        counts.torn += 1;
        deps.onTorn(from);
      }
      for (const item of items) received(from, item);
    },
    tick(watched) {
      const hampered = [...ways].flatMap(([boot, { isAway, unread }]) =>
        isAway || unread > MANY_UNREAD ? [boot] : [],
      );
      for (const boot of new Set([...watched, ...asked.keys(), ...hampered]))
        take(boot, sent({ kind: 'tick' }));
    },
    silentMs(boot) {
      const sinceMs = heardAtMs.get(boot);
      return sinceMs === undefined ? 0 : deps.now() - sinceMs;
    },
    lose(boot) {
      // What it counted is forgotten: should it be heard of again, another link id says that something is missing.
      ways.delete(boot);
      heardAtMs.delete(boot);
      for (const [id, { to }] of [...questions]) if (to === boot) settle(id, { type: 'lost', why: 'gone' });
    },
    stats: () => ({
      ...counts,
      peers: ways.size,
      questions: questions.size,
      unread: Math.max(0, ...[...ways.values()].map(({ unread }) => unread)),
    }),
  };
}

const sent = (item: LinkItem): OutgoingMessage => ({ type: 'sent', item, bytes: roughBytes(item) });
