/**
 * Another process that writes to a directory destination: `claim` takes as many of the keys as it can get and prints
 * them, `large` writes one file over and over until it is killed. Says "ready" first.
 */
import { DirectoryDestination } from "../../src/destination/directory.ts";

const [task, root, source, sizeBytes] = process.argv.slice(2);
const destination = new DirectoryDestination(root!);
console.log("ready");
if (task === "claim") {
  for (let i = 0; i < 100; i++) {
    const bytes = Buffer.from(String(process.pid));
    const result = await destination.write(`app/${i}`, { kind: "bytes", bytes }, { condition: "absent" });
    if (result.kind === "written") console.log(i);
  }
} else {
  for (;;) await destination.write("app/large", { kind: "file", path: source!, sizeBytes: Number(sizeBytes) });
}
