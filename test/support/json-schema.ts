/** Checks a value against a schema of src/cli/result-schema.ts, strictly: what the schema does not name is a fault. */
import type { JsonType, ResultSchema } from "../../src/cli/result-schema.ts";

/** One line for each thing that is not as the schema says, with its path. */
export function schemaFaults(schema: ResultSchema, value: unknown, path = "$"): string[] {
  const types = typeof schema.type === "string" ? [schema.type] : schema.type;
  const found = typeOf(value);
  const isOfType = types.includes(found) || (found === "integer" && types.includes("number"));
  if (!isOfType) return [`${path}: expected ${types.join(" or ")}, found ${JSON.stringify(value)}`];
  const faults: string[] = [];
  const isOdd = (condition: boolean, expected: string) => {
    if (condition) faults.push(`${path}: expected ${expected}, found ${JSON.stringify(value)}`);
  };
  if (schema.enum !== undefined) isOdd(!schema.enum.includes(value as string | null), `one of ${schema.enum}`);
  if (typeof value === "number" && schema.minimum !== undefined) isOdd(value < schema.minimum, `>= ${schema.minimum}`);
  if (typeof value === "string" && schema.format === "date-time") {
    isOdd(!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(value), "a time in UTC");
  }
  if (typeof value === "string" && types.includes("integer")) isOdd(!/^\d{16,20}$/.test(value), "digits beyond 2^53");
  if (Array.isArray(value)) {
    for (const [i, item] of value.entries()) faults.push(...schemaFaults(schema.items!, item, `${path}[${i}]`));
  } else if (typeof value === "object" && value !== null) {
    const properties = schema.properties ?? {};
    for (const name of schema.required ?? []) isOdd(!(name in value), `a field ${name}`);
    for (const [name, field] of Object.entries(value)) {
      const known = properties[name];
      if (known === undefined) faults.push(`${path}.${name}: expected no such field`);
      else faults.push(...schemaFaults(known, field, `${path}.${name}`));
    }
  }
  return faults;
}

// --- internal ---

function typeOf(value: unknown): JsonType {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  if (typeof value === "number") return Number.isInteger(value) ? "integer" : "number";
  return typeof value as JsonType;
}
