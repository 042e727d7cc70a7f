/**
 * Sends one file to a bucket or fetches it, as asked on standard input, and prints the peak of this process's resident
 * memory in bytes.
 */
import { S3Destination } from "../../src/destination/s3.ts";

const { direction, source, options } = await Bun.stdin.json();
const destination = new S3Destination(options);
if (direction === "up") await destination.write("key", source);
else {
  let received = 0;
  for await (const chunk of (await destination.read("key"))?.chunks ?? []) received += chunk.length;
  if (received !== source.sizeBytes) throw new Error(`expected ${source.sizeBytes} bytes, found ${received}`);
}
console.log(process.resourceUsage().maxRSS * 1024);
