// Goal: after a start, databases that have nothing to ship ask in turn where their chains end; what one of them has to ship does
// not wait for the others.
import { afterEach, expect, test } from "bun:test";
import { join } from "node:path";
import { Gate } from "../../src/destination/limit.ts";
import { tempDir } from "../support/temp.ts";
import { Host } from "./host.ts";

const dir = tempDir();
const hosts: Host[] = [];

afterEach(async () => {
  for (const host of hosts.splice(0)) await host.end();
});

/** A database that was new, did not wait for a turn, and was shipped whole; it is stopped. */
async function knownHost(contacts: Gate): Promise<Host> {
  const host = new Host(join(dir, crypto.randomUUID()), undefined, { contacts });
  hosts.push(host);
  host.create();
  await host.start();
  await host.settle();
  await host.stop();
  return host;
}

/** Others ask, and their answers are a long time coming. */
function taken(): { contacts: Gate; free: () => void } {
  const contacts = new Gate(1);
  const { promise, resolve } = Promise.withResolvers<void>();
  void contacts.run(() => promise);
  return { contacts, free: resolve };
}

async function look(host: Host): Promise<void> {
  for (let i = 0; i < 20; i++) {
    host.look();
    await Bun.sleep(2);
  }
}

test("a new database does not wait, and one that is known and idle does", async () => {
  const { contacts, free } = taken();
  const host = await knownHost(contacts);
  host.log.length = 0;
  await host.start();
  await look(host);
  expect(host.logged("first contact")).toBe(false);
  free();
  await host.until("it has had its turn", () => host.logged("first contact"));
});

test("one with something to ship does not wait, whether that was there at the start or came later", async () => {
  const { contacts } = taken();
  const host = await knownHost(contacts);
  host.insert();
  await host.start();
  await host.settle();
  await host.stop();
  host.log.length = 0;
  await host.start();
  await look(host);
  expect(host.logged("first contact")).toBe(false);
  host.insert();
  await host.settle();
  expect(Buffer.compare(await host.restored(), host.content())).toBe(0);
});

test("one that waits for its turn can be stopped", async () => {
  const { contacts } = taken();
  const host = await knownHost(contacts);
  await host.start();
  await look(host);
  expect(await host.replicator.stop(AbortSignal.timeout(200))).toBe(0);
});
