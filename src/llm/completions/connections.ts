/** The node's HTTP connections to model endpoints: pooled, bounded, kept alive, through proxies where there are some. */
import { Agent, type Dispatcher, EnvHttpProxyAgent } from 'undici';
import { LoopShare } from '../../domain/loop-share.ts';

/** Streams at once to one endpoint; a further request waits for a connection. */
const MAX_CONNECTIONS = 4_096;
const CONNECT_TIMEOUT_MS = 10_000;
/** Answers that are read in one turn of the loop; a piece costs some 20 µs, with what becomes of it. */
const READS_PER_TURN = 32;
/** An idle connection is let go before servers usually do. */
const KEEP_ALIVE_MS = 4_000;

export interface Connections {
  readonly dispatcher: Dispatcher;
  /** Of what all of them read. */
  readonly reads: LoopShare;
  /** Breaks what still runs. */
  close(): Promise<void>;
}

/** Proxies by the scheme of the endpoint's address; `except` lists hosts to be asked without, as NO_PROXY does. */
export interface Proxies {
  readonly https: string | undefined;
  readonly http: string | undefined;
  readonly except: string | undefined;
}

/** The run has deadlines of its own: none here. */
export function openConnections({ https, http, except = '' }: Proxies): Connections {
  const options: Agent.Options = {
    connections: MAX_CONNECTIONS,
    pipelining: 1,
    allowH2: false,
    keepAliveTimeout: KEEP_ALIVE_MS,
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: { timeout: CONNECT_TIMEOUT_MS },
  };
  const dispatcher =
    https === undefined && http === undefined
      ? new Agent(options)
      : new EnvHttpProxyAgent({
          ...options,
          httpsProxy: https ?? '',
          httpProxy: http ?? '',
          noProxy: except,
        });
  return { dispatcher, reads: new LoopShare(READS_PER_TURN), close: () => dispatcher.destroy() };
}
