/** Finds the name a user most likely meant. Pure. */

/** The candidate closest to `typed`, or undefined if none is close enough to be worth saying. */
export function nearest(typed: string, candidates: readonly string[]): string | undefined {
  const wanted = normalize(typed);
  if (wanted === "") return undefined;
  let best: string | undefined;
  // A third of the letters may be wrong: one of three, three of ten. More than that is a guess, not a suggestion.
  let bestDistance = Math.max(1, Math.floor(wanted.length / 3)) + 1;
  for (const candidate of candidates) {
    const name = normalize(candidate);
    // A cut-off name ("--snapshot-int") is as good as one slip of the finger.
    const distance = wanted.length >= 3 && name.startsWith(wanted) ? 1 : editDistance(wanted, name);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

// --- internal ---

/** camelCase, snake_case and a wrong number of dashes are not spelling mistakes. */
function normalize(name: string): string {
  return name
    .replaceAll(/([a-z])([A-Z])/g, "$1-$2")
    .toLowerCase()
    .replaceAll(/[-_]+/g, "");
}

/** Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let cost = Math.min(replace, previous[j]! + 1, row[j - 1]! + 1);
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) cost = Math.min(cost, beforePrevious[j - 2]! + 1);
      row.push(cost);
    }
    beforePrevious = previous;
    previous = row;
  }
  return previous[b.length]!;
}
