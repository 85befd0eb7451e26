/** Which names in an environment are meant for this node and mean nothing to it: a slip that would go unseen. */
import { slips } from './slips.ts';

/** Nobody else's: every unknown name that begins so is a mistake. */
const OWN = /^(AUTH|EXECUTION|ORCHESTRATOR|NOOBLE|MODEL|PEER|DELTA|DRAIN|NODE_MAX|SESSION_IDLE)_/;
/** What Kubernetes puts into every container for a service of such a name. */
const SERVICE_LINK = /_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)$/;
/** Shorter names are too near to those of others (NODE_ID, NODE_IP). */
const MIN_LENGTH = 9;
/** Names of at least so many characters may have two slips. */
const TWO_SLIPS_LENGTH = 12;

/**
 * The problem of each name that is none of `known` though it begins as ours do. A name whose first word others use too
 * (NODE_, DATABASE_, OPENAI_) is a problem only where it is a slip away from one of ours that is not set itself.
 */
export function unknownSettings(
  names: readonly string[],
  known: ReadonlySet<string>,
): readonly { readonly name: string; readonly problem: string }[] {
  const unset = [...known].filter((name) => !names.includes(name));
  return names.flatMap((name) => {
    if (known.has(name) || SERVICE_LINK.test(name)) return [];
    const isOwn = OWN.test(name);
    const meant = isOwn
      ? nearest(name, [...known], (most) => most / 2)
      : nearest(name, unset, () => slipsIn(name));
    if (!isOwn && meant === undefined) return [];
    const problem = `is no setting of this node${meant === undefined ? '' : `; did you mean ${meant}?`}`;
    return [{ name, problem }];
  });
}

const slipsIn = (name: string): number =>
  name.length < MIN_LENGTH ? 0 : name.length < TWO_SLIPS_LENGTH ? 1 : 2;

const firstWord = (name: string): string => name.split('_', 1)[0] ?? '';
const restOf = (name: string): string => name.slice(firstWord(name).length + 1);

/** The name of the same first word whose rest is the fewest slips away, at most so many of the longer one's characters. */
function nearest(
  name: string,
  known: readonly string[],
  mostOf: (length: number) => number,
): string | undefined {
  const ranked = known
    .filter((each) => firstWord(each) === firstWord(name))
    .map((each) => ({ each, slips: slips(restOf(name), restOf(each)) }))
    .filter((one) => one.slips <= mostOf(Math.max(restOf(name).length, restOf(one.each).length)))
    .sort((one, other) => one.slips - other.slips);
  return ranked[0]?.each;
}
