/** Programs that tests start beside themselves. */
import { afterEach } from "bun:test";

/** The children of a test file: whoever is put into the result is ended after the test that put it there. */
export function ownChildren(): Bun.Subprocess[] {
  const children: Bun.Subprocess[] = [];
  afterEach(async () => {
    for (const child of children.splice(0)) {
      child.kill("SIGKILL");
      await child.exited;
    }
  });
  return children;
}

/** Gives `take` what a child writes, as it comes. */
export function onText(stream: ReadableStream<Uint8Array<ArrayBuffer>>, take: (text: string) => void): void {
  void (async () => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) take(text);
  })();
}

/** What a child has written by now, whenever the result is asked. */
export function textOf(stream: ReadableStream<Uint8Array<ArrayBuffer>>): () => string {
  let all = "";
  onText(stream, (text) => {
    all += text;
  });
  return () => all;
}
