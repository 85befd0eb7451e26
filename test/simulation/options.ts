/** What a simulated cluster is like, and which parts of the protocol it has: to take one away shows what it is for. */

export interface SimulationOptions {
  readonly nodes: number;
  readonly sessions: number;
  readonly clients: number;
  /** Faults come for so long; then it is quiet for as long again, for what must end at last. */
  readonly troubleMs: number;
  readonly quietMs: number;
  /** Chance that a bundle is lost, that the database takes long. */
  readonly loss: number;
  readonly slow: number;
  /** What the processes of earlier boots still do comes late. */
  readonly zombies: boolean;
  // --- Parts of the protocol ---
  /** Batches hold their boot's row. */
  readonly lock: boolean;
  /** The first batch on a new connection holds it alone. */
  readonly alone: boolean;
  /** Effects are stored before they happen. */
  readonly gate: boolean;
  /** Ends and effects name their epoch. */
  readonly turnEpoch: boolean;
  /** An acceptance of which nobody knows whether it was stored is ended. */
  readonly settle: boolean;
  /** An owner row of one's own without a session is taken for a claim. */
  readonly adopt: boolean;
  /** A link that misses something is mended. */
  readonly gaps: boolean;
  /** Links without traffic are numbered on. */
  readonly ticks: boolean;
  /** A greeting and its snapshot travel together. */
  readonly greeting: boolean;
  /** A link that is forgotten counts anew under another id. */
  readonly linkIds: boolean;
  /** A burial that found its node renewed is no death. */
  readonly renewed: boolean;
  /** Clients of nodes that are gone are let go. */
  readonly peersLost: boolean;
}

export const DEFAULTS: SimulationOptions = {
  ...{ nodes: 3, sessions: 4, clients: 6, troubleMs: 60_000, quietMs: 60_000 },
  ...{ loss: 0.002, slow: 0.01, zombies: false },
  ...{ lock: true, alone: true, gate: true, turnEpoch: true, settle: true, adopt: true },
  ...{ gaps: true, ticks: true, greeting: true, linkIds: true, renewed: true, peersLost: true },
};
