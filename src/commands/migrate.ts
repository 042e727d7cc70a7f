/** `walsync migrate`: from Litestream's configuration to walsync's, and from one layout of files to the other. */
import { defineWalsyncCommand } from "../cli/command.ts";
import { envLayer, type SettingDef } from "../config.ts";
import type { ConfigFile } from "../config-file.ts";
import { DESTINATION_FLAGS, destinationOf } from "../engine/destination.ts";
import { ENCRYPTION_FLAGS } from "../engine/encryption.ts";
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
    requireNoKeys(context.config, env);
    const { signal } = context;
    const source = await destinationOf({ ...flags, bucket: flags.bucket }, env, signal);
    const target = await destinationOf({ ...flags, bucket: to }, env, signal);
    const { migrateConvert } = await import("./migrate-convert.ts");
    try {
      await migrateConvert(source, target, { name, as: flags.as ?? name, json, signal });
    } catch (error) {
      throw error instanceof WalsyncError && error.code === "E_IDENTITY" ? unreadable(error) : error;
    } finally {
      source.close();
      target.close();
    }
  },
});

// --- internal ---

/** Throws E_CONFIG if anything is said of keys: the copy would lie in the clear where everything else is encrypted. */
function requireNoKeys(config: ConfigFile | null, env: Readonly<Record<string, string | undefined>>): void {
  const layers = [envLayer(env), ...(config === null ? [] : [config.layer])];
  for (const [name, def] of Object.entries<SettingDef>(ENCRYPTION_FLAGS)) {
    const layer = layers.find((one) => one.text(name, def) !== undefined);
    if (layer === undefined) continue;
    throw new WalsyncError(
      "E_CONFIG",
      `migrate: expected no encryption with --convert, which writes in the clear, found ${layer.label(name, def)}`,
      {
        hint:
          "If the copy may lie in the clear, run it without WALSYNC_IDENTITY_FILE, and where walsync.toml has no [encryption]. " +
          "Else restore the database, and begin to ship it encrypted.",
      },
    );
  }
}

function unreadable(error: WalsyncError): WalsyncError {
  return new WalsyncError("E_IDENTITY", error.message, {
    hint: "migrate --convert does not read encrypted files. Use walsync restore, and ship the database anew; see docs/ENCRYPTION.md.",
    cause: error,
  });
}
