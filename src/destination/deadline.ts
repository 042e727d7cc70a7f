/**
 * The caller's signal and a time limit as one signal, for one request. The limit can be armed again and again, for each
 * chunk of a body; `fetch` keeps the signal for as long as the body lasts. `dispose` when the request is over.
 */
export class Deadline {
  readonly #controller = new AbortController();
  readonly #caller: AbortSignal | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Set once the limit has passed. */
  timeout: Error | null = null;

  /** Throws the caller's reason if it has aborted already. */
  constructor(caller: AbortSignal | undefined) {
    caller?.throwIfAborted();
    this.#caller = caller;
    caller?.addEventListener("abort", this.#onAbort, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The reason the caller aborted with, if it did. In an object, since a reason may be anything. */
  get callerReason(): { reason: unknown } | null {
    return this.#caller?.aborted ? { reason: this.#caller.reason } : null;
  }

  arm(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.timeout = new Error(`no answer within ${ms / 1000} s`);
      this.#controller.abort(this.timeout);
    }, ms);
  }

  disarm(): void {
    clearTimeout(this.#timer);
  }

  abort(): void {
    this.#controller.abort();
  }

  dispose(): void {
    clearTimeout(this.#timer);
    this.#caller?.removeEventListener("abort", this.#onAbort);
  }

  readonly #onAbort = (): void => this.#controller.abort(this.#caller?.reason);
}
