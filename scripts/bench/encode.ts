/** `encode`: how fast a core reads a WAL and encodes LTX, in a program that is compiled as walsync is. */
import { Database } from "bun:sqlite";
import { join, resolve } from "node:path";
import { MiB } from "../../src/bytes.ts";
import { compile } from "../build.ts";
import type { EncodeSpeeds } from "./encode-child.ts";
import type { Situation } from "./measure.ts";
import { runToEnd } from "./processes.ts";
import type { Stage } from "./stage.ts";

export function encodeSituations(stage: Stage): Situation[] {
  const { encodeMb } = stage.scale;
  let program: string | null = null;
  return [
    {
      title: `a WAL of ${encodeMb} MB, pages of 4096 bytes`,
      databases: null,
      entrants: [
        {
          name: "walsync",
          measure: () =>
            stage.inFolder(async (folder) => {
              program ??= compileChild(stage.makeFolder());
              const path = join(folder, "app.db");
              const writer = fillWal(path, encodeMb);
              try {
                const { stdout } = await runToEnd([program, path], {});
                return JSON.parse(stdout) as EncodeSpeeds;
              } finally {
                writer.close();
              }
            }),
        },
      ],
    },
  ];
}

/** Makes a database whose WAL holds `sizeMb` of pages. Whoever closes it ends that. */
export function fillWal(path: string, sizeMb: number): Database {
  const database = new Database(path, { create: true, readwrite: true });
  for (const pragma of ["journal_mode = wal", "synchronous = off", "wal_autocheckpoint = 0"]) {
    database.run(`pragma ${pragma}`);
  }
  database.run("create table entry (id integer primary key, body text)");
  const insert = database.query(
    `insert into entry (body) with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000)
     select hex(randomblob(400)) from n`,
  );
  for (let done = 0; done < sizeMb * MiB; done += BYTES_PER_COMMIT) insert.run();
  return database;
}

// --- internal ---

/** What a thousand rows of 800 characters take in the WAL. */
const BYTES_PER_COMMIT = 255 * 4120;

function compileChild(folder: string): string {
  const outfile = join(folder, "encode-child");
  if (compile({ entry: resolve(import.meta.dir, "encode-child.ts"), outfile }) !== 0) {
    throw new Error("encode-child.ts: expected it to compile, found that it does not");
  }
  return outfile;
}
