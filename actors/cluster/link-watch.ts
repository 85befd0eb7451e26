/** Watches over the links of a boot: numbers them on while somebody needs them, and lets go of those that are gone. */
import type { Boot, Member } from '../../src/ports/cluster.ts';
import type { Guests } from './guests.ts';
import type { Links } from './links.ts';
import type { RemoteClients } from './remote-clients.ts';

/** An owner that says nothing for so long is not reached, though it may live: its clients here are sent away. */
const SILENT_OWNER_MS = 10_000;
/**
 * A gateway is told in every so many ticks which clients of its own are here: that one has left may have been lost. One
 * that says nothing for so long, as gateways without clients here do, is told with each.
 */
const CENSUS_TICKS = 10;
const SILENT_GATEWAY_MS = 3_000;

interface LinkWatchDeps {
  readonly links: Pick<Links, 'tick' | 'lose' | 'silentMs'>;
  readonly clients: Pick<RemoteClients, 'owners' | 'lose' | 'silent'>;
  readonly guests: Pick<Guests, 'gateways' | 'lose' | 'census'>;
}

export interface LinkWatch {
  /** Boots that somebody here counts on. */
  named(): ReadonlySet<Boot>;
  /**
   * Who lives, as it was asked for after those were named: whoever is not among them is dead. Membership alone would
   * not do: a boot may be named before a look has shown it, and die before the next.
   */
  looked(named: ReadonlySet<Boot>, members: readonly Member[]): void;
  /** That boot is dead. */
  lost(boot: Boot): void;
  /** To be called once a second. */
  tick(): void;
}

export function createLinkWatch({ links, clients, guests }: LinkWatchDeps): LinkWatch {
  let ticks = 0;
  const named = (): ReadonlySet<Boot> => new Set([...clients.owners(), ...guests.gateways()]);

  function lost(boot: Boot): void {
    links.lose(boot);
    clients.lose(boot);
    guests.lose(boot);
  }

  return {
    named,
    lost,
    looked(before, members) {
      const living = new Set(members.map(({ boot }) => boot));
      for (const boot of before) if (!living.has(boot)) lost(boot);
    },
    tick() {
      ticks += 1;
      links.tick(named());
      for (const boot of clients.owners()) if (links.silentMs(boot) > SILENT_OWNER_MS) clients.silent(boot);
      for (const boot of guests.gateways())
        if (ticks % CENSUS_TICKS === 0 || links.silentMs(boot) > SILENT_GATEWAY_MS) guests.census(boot);
    },
  };
}
