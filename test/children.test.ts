// Goal: what the first process of a container does against zombies takes no exit status from whoever waits for it.
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { awaitChild, reapOrphans } from "../src/children.ts";

test.skipIf(process.platform !== "linux")("a child that somebody waits for is none of the orphans", async () => {
  const child = Bun.spawn(["sh", "-c", "exit 7"], { stdin: "ignore" });
  awaitChild(child);
  // Without a turn of the event loop nobody else can take the status.
  while (!readFileSync(`/proc/${child.pid}/stat`, "utf8").includes(") Z ")) Bun.sleepSync(1);
  reapOrphans();
  expect(await child.exited).toBe(7);
});
