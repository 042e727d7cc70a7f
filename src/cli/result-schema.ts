/**
 * What a command prints with --json, described once: docs/JSON.md is written from it, and the tests hold every command to it.
 * A subset of JSON Schema (https://json-schema.org/draft/2020-12), with builders for what occurs here.
 */

export type JsonType = "object" | "array" | "string" | "integer" | "number" | "boolean" | "null";

export interface ResultSchema {
  type: JsonType | readonly JsonType[];
  description?: string;
  enum?: readonly (string | null)[];
  format?: "date-time";
  minimum?: number;
  /** Of an object: all of its keys. Those that are not in `required` may be absent. */
  properties?: Readonly<Record<string, ResultSchema>>;
  required?: readonly string[];
  additionalProperties?: false;
  /** Of an array. */
  items?: ResultSchema;
}

/** An object with these keys and no others, none of them absent. */
export function object(properties: Readonly<Record<string, ResultSchema>>, description = ""): ResultSchema {
  return {
    type: "object",
    ...described(description),
    properties,
    required: Object.keys(properties),
    additionalProperties: false,
  };
}

/** As `object`, but any key may be absent. */
export function partial(properties: Readonly<Record<string, ResultSchema>>, description = ""): ResultSchema {
  return { ...object(properties, description), required: [] };
}

export function list(items: ResultSchema, description = ""): ResultSchema {
  return { type: "array", ...described(description), items };
}

export function text(description: string): ResultSchema {
  return { type: "string", ...described(description) };
}

export function choice(values: readonly string[], description: string): ResultSchema {
  return { type: "string", ...described(description), enum: values };
}

/** ISO 8601, UTC. */
export function time(description: string): ResultSchema {
  return { type: "string", ...described(description), format: "date-time" };
}

/** A whole number of at least 0. */
export function count(description: string): ResultSchema {
  return { type: "integer", ...described(description), minimum: 0 };
}

/** At least 0, with decimals. */
export function amount(description: string): ResultSchema {
  return { type: "number", ...described(description), minimum: 0 };
}

export function flag(description: string): ResultSchema {
  return { type: "boolean", ...described(description) };
}

/** A transaction id; beyond 2^53 - 1 a string of its digits, so that none is lost. */
export function txid(description: string): ResultSchema {
  return { type: ["integer", "string"], ...described(description), minimum: 0 };
}

export function orNull(schema: ResultSchema): ResultSchema {
  const types = typeof schema.type === "string" ? [schema.type] : schema.type;
  return {
    ...schema,
    type: [...types, "null"],
    ...(schema.enum === undefined ? {} : { enum: [...schema.enum, null] }),
  };
}

// --- internal ---

function described(description: string): { description?: string } {
  return description === "" ? {} : { description };
}
