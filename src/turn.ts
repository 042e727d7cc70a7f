/** Lets everything else that is ready have its turn: for work that takes long and has to be done on this thread. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
