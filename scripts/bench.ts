/**
 * Measures the compiled walsync and Litestream side by side on one S3 server: `bun run bench --help`. Docs:
 * docs/BENCHMARKS.md.
 */
import { runBench } from "./bench/run.ts";

process.exit(await runBench(process.argv.slice(2)));
