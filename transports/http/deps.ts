/** What the HTTP edge needs of the node: wired in src/node.ts, replaced by small stand-ins in tests. */
import type { SessionId, TaskId } from '../../src/domain/ids.ts';
import type { KnownProviders } from '../../src/domain/providers.ts';
import type { Executions } from '../../src/ports/executions.ts';
import type {
  AgentManagement,
  TemplateManagement,
  TenantAdmin,
  WebhookManagement,
} from '../../src/ports/management.ts';
import type { Directory } from '../../src/ports/sessions.ts';
import type { Clock, Log, Refusals } from '../../src/ports/telemetry.ts';
import type { TurnObserver } from '../../src/ports/turn-observer.ts';
import type { Access, ProxyCheck } from '../wire/access.ts';

export interface HttpDeps {
  readonly directory: Directory;
  /** Watches the turns that are answered as streams. Whoever made it closes it. */
  readonly observer: TurnObserver;
  /** Absent: the node has no agent management, and no routes for it. */
  readonly management?: Management;
  /** Absent: no routes for runs outside a chat. Whoever made it closes it. */
  readonly executions?: Executions;
  /** What lets services in to `/internal/*`; undefined: nobody is one. */
  readonly serviceToken?: string | undefined;
  readonly access: Access;
  /** The refusal of a request for the way it came, by the names of its headers. */
  readonly proxied: ProxyCheck;
  readonly refusals: Refusals;
  /** Whether `/metrics*`, `/ws/stats` and `/health/detailed` need the scope `metrics`: in jwt mode. */
  readonly guardProbes: boolean;
  readonly allowedOrigins: readonly string[];
  readonly log: Log;
  readonly clock: Clock;
  readonly newTaskId: () => TaskId;
  readonly newSessionId: () => SessionId;
  readonly nodeId: string;
  readonly version: string;
  readonly draining: () => boolean;
  /** What must answer for the node to be ready, by name; each resolves, or rejects with the reason. */
  readonly checks: Readonly<Record<string, () => Promise<void>>>;
  /** Model providers, each with the variable that it lacks; they do not keep the node from being ready. */
  readonly providers?: KnownProviders;
  /** Those of them whose endpoints fail, and are not asked for a while. */
  readonly openCircuits?: () => readonly string[];
  /** What was set and can not work, though the node can. */
  readonly warnings?: () => readonly string[];
  /** The Prometheus exposition. */
  readonly metricsText: () => Promise<{ readonly contentType: string; readonly body: string }>;
  /** The same figures as JSON, for people. */
  readonly overview: () => object | Promise<object>;
  readonly socketStats: () => object;
  /** This node among those that share its database; undefined where it has it to itself. */
  readonly cluster?: () => object | undefined;
  /** How long the deltas of an SSE turn may travel together, ms. */
  readonly deltaWindowMs: number;
  readonly timing?: Partial<HttpTiming>;
}

/** Agent management, as the routes see it. */
export interface Management {
  readonly agents: AgentManagement;
  readonly templates: TemplateManagement;
  readonly webhooks: WebhookManagement;
  readonly tenants: TenantAdmin;
}

/** Times and sizes that only tests change. */
export interface HttpTiming {
  /** A silent SSE stream gets a comment this often, so that proxies keep it and dead clients are found. */
  readonly heartbeatMs: number;
  /** Frames of an SSE turn that its reader has not taken yet; past this it is cut off. */
  readonly maxBufferedBytes: number;
  readonly checkTimeoutMs: number;
}

export const HTTP_TIMING: HttpTiming = {
  heartbeatMs: 15_000,
  maxBufferedBytes: 1024 * 1024,
  checkTimeoutMs: 2_000,
};
