/** Text that shows what it is: for a terminal and for the status page. */

/**
 * `text` without what a terminal obeys or hides: control characters but tab and line break, and those that change the
 * direction of writing, as \uXXXX. Names of files and messages of servers are written by others. JSON stays the same JSON.
 */
export function printable(text: string): string {
  return text.replaceAll(UNPRINTABLE, (sign) => `\\u${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// --- internal ---

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for.
const UNPRINTABLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g;
