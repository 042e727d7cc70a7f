/** A command line as words, quoted as in a shell, without what only a shell can do; and the way back for one word. Pure. */

/** The words, or what keeps the text from being nothing but words. */
export type SplitWords = { kind: "words"; words: string[] } | { kind: "fault"; found: string };

/**
 * Splits at white space. Quotes and backslashes mean what they mean in POSIX shells. What a shell would replace or act upon
 * (variables, commands, pipes, redirections, lists) is a fault, because a program would get it as it is written.
 * Spec: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html#tag_19_02
 */
export function splitWords(text: string): SplitWords {
  const words: string[] = [];
  /** Null between two words: a quoted word may be empty. */
  let word: string | null = null;
  let end = 0;
  for (const match of text.matchAll(PIECE)) {
    end = match.index + match[0].length;
    const { single, double, escaped, plain } = match.groups!;
    const piece =
      single ?? double?.replaceAll(ESCAPED_IN_DOUBLE, withoutBackslash) ?? escaped?.replace("\n", "") ?? plain;
    if (piece !== undefined) word = (word ?? "") + piece;
    else if (word !== null) {
      words.push(word);
      word = null;
    }
  }
  if (end < text.length) return { kind: "fault", found: faultAt(text.slice(end)) };
  if (word !== null) words.push(word);
  return words.length === 0 ? { kind: "fault", found: "nothing" } : { kind: "words", words };
}

/** One word for a shell, in single quotes: whatever is in `text` means itself. */
export function quoteWord(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// --- internal ---

const PIECE = /\s+|'(?<single>[^']*)'|"(?<double>(?:[^"\\$`]|\\.)*)"|\\(?<escaped>.)|(?<plain>[^\s'"\\|&;<>()$`]+)/gsy;
/** Every other backslash in double quotes is one. */
const ESCAPED_IN_DOUBLE = /\\(["\\$`\n])/g;

function withoutBackslash(_pair: string, escaped: string): string {
  return escaped === "\n" ? "" : escaped;
}

/** What `rest` begins with, which is no piece. */
function faultAt(rest: string): string {
  const [quote] = rest;
  if (quote === "'" || quote === '"') {
    const replaced = quote === '"' ? /^"(?:[^"\\$`]|\\.)*([$`])/s.exec(rest)?.[1] : undefined;
    return replaced ?? `a ${quote} without its end`;
  }
  return quote === "\\" ? "a backslash at its end" : quote!;
}
