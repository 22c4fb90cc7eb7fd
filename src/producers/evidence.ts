/** What a person says in proof, for whoever asks later: a statement, a case number. */
export const EVIDENCE_LENGTH = { least: 5, most: 500 } as const;

/** On one line; null when it is too short or too long to prove anything to anybody. */
export function parseEvidence(text: string): string | null {
  const evidence = text.trim().replaceAll(/\s+/g, ' ');
  return evidence.length < EVIDENCE_LENGTH.least || evidence.length > EVIDENCE_LENGTH.most ? null : evidence;
}
