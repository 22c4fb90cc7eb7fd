/** The otp commands in a line of shell, as their words. As much of the shell's grammar as our examples use. */
export function otpCommandsIn(line: string): string[][] {
  const tokens = line.match(/"[^"]*"|'[^']*'|[|()<>#]|(?:[^\s|()<>#"']|"[^"]*"|'[^']*')+/g) ?? [];
  const found = tokens.flatMap((token) =>
    [...token.matchAll(/\$\(([^)]*)\)/g)].flatMap(([, inner = '']) => otpCommandsIn(inner)),
  );
  let words: string[] | null = null;
  for (const token of tokens) {
    if (/^[|()<>#]$/.test(token)) words = null;
    else if (words !== null) words.push(token.replace(/^["']|["']$/g, ''));
    else if (token === 'otp') {
      words = [];
      found.push(words);
    }
  }
  return found;
}
