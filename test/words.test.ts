// Goal: a command line means the words that a shell would make of it, or it is refused: never something else, never a part.
import { expect, test } from "bun:test";
import { splitWords } from "../src/words.ts";

const CASES = [
  "app",
  "  app\t--port  80\n",
  "app 'a b' \"c d\" e\\ f",
  "app a'b'\"c\"\\d",
  "app '' \"\"",
  `app '\\' "\\"" "\\\\" "\\a" "it's" '"'`,
  'app "\\$HOME" "\\`date\\`" \\$HOME \\| \\& \\; \\< \\> \\( \\)',
  "app '$HOME `date` | & ; < > ( )'",
  'app "a | b & c ; d < e > f ( g )"',
  'app "a\\\nb" c\\\nd',
  "app 'a\nb' \"c\nd\"",
  "sh -c 'exec app \"$PORT\"'",
  "app --url=http://x/%7E#frag ü 日本",
];

function shellWords(line: string): string[] {
  // One character more for each word, so that an empty last one shows.
  const script = `set -- ${line}\nfor word in "$@"; do printf '%s\\001' "$word"; done`;
  const { stdout, success } = Bun.spawnSync(["sh", "-c", script]);
  expect(success).toBe(true);
  return stdout.toString().split("\u0001").slice(0, -1);
}

test.each(CASES)("%j is split as sh splits it", (line) => {
  expect(splitWords(line)).toEqual({ kind: "words", words: shellWords(line) });
});

test("whatever sh takes as one simple command without replacing anything is split the same way", () => {
  const seed = Math.trunc(Math.random() * 2 ** 31);
  console.log(`seed ${seed}`);
  let state = seed;
  const random = (below: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 8) % below;
  };
  const pieces = ["a", "b", " ", "\t", "'", '"', "\\", "\\\\", "'a'", '"b c"', "\\ ", "=", "-", "/", "'\"'"];
  const lines = Array.from({ length: 300 }, () =>
    Array.from({ length: 12 }, () => pieces[random(pieces.length)]).join(""),
  );
  let words = 0;
  for (const line of lines) {
    const split = splitWords(line);
    if (split.kind === "fault") continue;
    words++;
    expect([seed, line, split.words]).toEqual([seed, line, shellWords(line)]);
  }
  expect([seed, words > 20]).toEqual([seed, true]);
});

test.each([
  ["", "nothing"],
  [" \t\n", "nothing"],
  ["app 'a", "a ' without its end"],
  ['app "a', 'a " without its end'],
  ['app "a\\"', 'a " without its end'],
  ["app \\", "a backslash at its end"],
  ["app $HOME", "$"],
  ['app "$HOME"', "$"],
  ['app "a`b`', "`"],
  ["app `date`", "`"],
  ["app | wc", "|"],
  ["app && b", "&"],
  ["app&", "&"],
  ["app; b", ";"],
  ["app > file", ">"],
  ["app < file", "<"],
  ["(app)", "("],
])("%j is refused", (line, found) => {
  expect(splitWords(line)).toEqual({ kind: "fault", found });
});
