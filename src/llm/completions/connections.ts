/** The node's HTTP connections to model endpoints: pooled, bounded, kept alive, through the operator's proxies. */
import { Agent, type Dispatcher, EnvHttpProxyAgent } from 'undici';

/** Streams at once to one endpoint; a further request waits for a connection. */
const MAX_CONNECTIONS = 4_096;
const CONNECT_TIMEOUT_MS = 10_000;
/** An idle connection is let go before servers usually do. */
const KEEP_ALIVE_MS = 4_000;

export interface Connections {
  readonly dispatcher: Dispatcher;
  /** Breaks what still runs. */
  close(): Promise<void>;
}

/** What `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say. */
export interface Proxies {
  readonly httpProxy?: string;
  readonly httpsProxy?: string;
  readonly noProxy?: string;
}

/** The run has deadlines of its own: none here. */
export function openConnections(proxies: Proxies): Connections {
  const options: Agent.Options = {
    connections: MAX_CONNECTIONS,
    pipelining: 1,
    allowH2: false,
    keepAliveTimeout: KEEP_ALIVE_MS,
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: { timeout: CONNECT_TIMEOUT_MS },
  };
  const proxied = proxies.httpProxy !== undefined || proxies.httpsProxy !== undefined;
  const dispatcher = proxied ? new EnvHttpProxyAgent({ ...options, ...proxies }) : new Agent(options);
  return { dispatcher, close: () => dispatcher.destroy() };
}
