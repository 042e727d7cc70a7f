/** `walsync migrate`: from Litestream's configuration to walsync's, and from one layout of files to the other. */
import { defineWalsyncCommand } from "../cli/command.ts";
import { DESTINATION_FLAGS, destinationOf } from "../engine/destination.ts";
import { WalsyncError } from "../errors.ts";
import { MIGRATE_RESULT } from "./results.ts";

const { bucket: _bucket, ...PLACE_FLAGS } = DESTINATION_FLAGS;

export default defineWalsyncCommand({
  meta: { name: "migrate", description: "Take over from Litestream: its configuration, and copies of its replicas" },
  positionals: { litestream: { description: "litestream.yml; without it, --convert" } },
  flags: {
    output: {
      type: "string",
      short: "o",
      placeholder: "FILE",
      description: "walsync.toml to write, or a folder if there are several destinations; default: standard output",
    },
    force: { type: "boolean", description: "replace the output if it exists" },
    convert: { type: "string", placeholder: "NAME", description: "copy this database into the other layout" },
    bucket: { type: "string", short: "b", placeholder: "URL", description: "with --convert: where it is" },
    to: { type: "string", placeholder: "URL", description: "with --convert: where the copy goes" },
    as: { type: "string", placeholder: "NAME", description: "with --convert: name of the copy; default: the same" },
    ...PLACE_FLAGS,
    json: { type: "boolean", description: "print the result as JSON" },
  },
  result: MIGRATE_RESULT,
  examples: [
    ["walsync migrate /etc/litestream.yml -o walsync.toml", "The same databases, destination and intervals"],
    [
      "walsync migrate --convert app -b s3://backups/prod --to s3://backups/new",
      "Copy a replica into the other layout",
    ],
  ],
  async run(context) {
    const { flags, positionals, env } = context;
    const { litestream } = positionals;
    if ((litestream === undefined) === (flags.convert === undefined)) {
      const found = litestream === undefined ? "neither" : "both";
      throw new WalsyncError("E_USAGE", `migrate: expected a litestream.yml or --convert, found ${found}`);
    }
    if (litestream !== undefined) {
      const { migrateConfig } = await import("./migrate-config.ts");
      const { output, force, json } = flags;
      migrateConfig({ path: litestream, output, force, json, env });
      return;
    }
    const { convert: name = "", to, json } = flags;
    if (flags.bucket === undefined || to === undefined) {
      throw new WalsyncError("E_USAGE", `migrate: expected --bucket and --to with --convert, found not both`);
    }
    const { signal } = context;
    const source = await destinationOf({ ...flags, bucket: flags.bucket }, env, signal);
    const target = await destinationOf({ ...flags, bucket: to }, env, signal);
    const { migrateConvert } = await import("./migrate-convert.ts");
    try {
      await migrateConvert(source, target, { name, as: flags.as ?? name, json, signal });
    } finally {
      source.close();
      target.close();
    }
  },
});
