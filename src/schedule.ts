/** When each of many things is due next: a binary heap with one place per item, so it never outgrows them. */
export class Schedule<T> {
  readonly #heap: { item: T; dueMs: number }[] = [];
  readonly #places = new Map<T, number>();

  /** The earliest due time; infinite if nothing is due ever. */
  get nextDueMs(): number {
    return this.#heap[0]?.dueMs ?? Number.POSITIVE_INFINITY;
  }

  /** Sets when `item` is due. An infinite time takes it out. */
  set(item: T, dueMs: number): void {
    const place = this.#places.get(item);
    if (!Number.isFinite(dueMs)) {
      if (place !== undefined) this.#removeAt(place);
      return;
    }
    if (place === undefined) {
      this.#heap.push({ item, dueMs });
      this.#up(this.#heap.length - 1);
      return;
    }
    this.#heap[place]!.dueMs = dueMs;
    this.#down(this.#up(place));
  }

  /** Makes `item` due at `dueMs`, unless it is due earlier. */
  advance(item: T, dueMs: number): void {
    const place = this.#places.get(item);
    if (place === undefined || this.#heap[place]!.dueMs > dueMs) this.set(item, dueMs);
  }

  /** Takes out the item that is due first, if it is due by `nowMs`. */
  takeDue(nowMs: number): T | undefined {
    const first = this.#heap[0];
    if (first === undefined || first.dueMs > nowMs) return undefined;
    this.#removeAt(0);
    return first.item;
  }

  #removeAt(place: number): void {
    const [removed, last] = [this.#heap[place]!, this.#heap.pop()!];
    this.#places.delete(removed.item);
    if (removed === last) return;
    this.#put(place, last);
    this.#down(this.#up(place));
  }

  #put(place: number, entry: { item: T; dueMs: number }): void {
    this.#heap[place] = entry;
    this.#places.set(entry.item, place);
  }

  /** Moves the entry towards the top as far as it belongs; returns its place. */
  #up(start: number): number {
    const entry = this.#heap[start]!;
    let place = start;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (this.#heap[parent]!.dueMs <= entry.dueMs) break;
      this.#put(place, this.#heap[parent]!);
      place = parent;
    }
    this.#put(place, entry);
    return place;
  }

  #down(start: number): void {
    const entry = this.#heap[start]!;
    let place = start;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= this.#heap.length) break;
      if (child + 1 < this.#heap.length && this.#heap[child + 1]!.dueMs < this.#heap[child]!.dueMs) child++;
      if (this.#heap[child]!.dueMs >= entry.dueMs) break;
      this.#put(place, this.#heap[child]!);
      place = child;
    }
    this.#put(place, entry);
  }
}
