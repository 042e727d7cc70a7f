/** A process that takes one step of a follower, and dies before durable step `argv[4]` of what belongs to the copy. */
import { dirname } from "node:path";
import { openDestination } from "../../src/destination/open.ts";
import { observeDurableSteps } from "../../src/durable.ts";
import { Follower } from "../../src/restore/follow.ts";

const [url, local, fatal] = process.argv.slice(2) as [string, string, string];
let steps = 0;
observeDurableSteps((_step, path) => {
  if (!path.startsWith(dirname(local))) return;
  if (steps++ === Number(fatal)) process.kill(process.pid, "SIGKILL");
});
const destination = await openDestination(url);
const follower = new Follower(destination, "app", local);
await follower.step(new AbortController().signal);
follower.close();
