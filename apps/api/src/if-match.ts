import { Problem } from './problem.ts';

/** An entity tag of RFC 9110. */
const ENTITY_TAG = /^(W\/)?"([\x21\x23-\x7e\x80-\xff]*)"$/;

/**
 * The version that a change is meant for. No version is 0, so that 0 matches none: it stands for a weak tag, which by
 * RFC 9110 never matches here, and for a tag that is none of ours.
 *
 * One tag, no list, and not `*`: "whatever it is by now" is the lost update that this header prevents.
 *
 * @throws Problem version-required without the header, malformed-if-match when it is not one entity tag.
 */
export function versionOf(ifMatch: string | undefined): number {
  if (ifMatch === undefined) throw new Problem('version-required');
  const tag = ENTITY_TAG.exec(ifMatch.trim());
  if (tag === null) throw new Problem('malformed-if-match');
  const [, weak, version = ''] = tag;
  return weak === undefined && /^[1-9]\d{0,9}$/.test(version) ? Number(version) : 0;
}

export const etagOf = ({ version }: { readonly version: number }): string => `"${version}"`;
