import { fieldOf } from '@oncebox/message';

/**
 * The id of the aggregate in the stored properties of a message, which somebody may have edited.
 *
 * @returns undefined for properties that are no JSON object, or have no such header.
 */
export function subjectOf(properties: string): string | undefined {
  let given: unknown;
  try {
    given = JSON.parse(properties);
  } catch {
    return undefined;
  }
  const subject = fieldOf(fieldOf(given, 'headers'), 'cloudEvents:subject');
  return typeof subject === 'string' ? subject : undefined;
}
