/**
 * An error as lines for the user, or as the fields of an event for programs. A fault of the world gets its code, message,
 * causes and a hint; a bug gets its stack and a request to report it. Pure.
 */
import { EXIT_BUG, exitStatus, messageOf, WalsyncError } from "../errors.ts";
import type { LogFields } from "../log.ts";
import { ExitWith } from "./exit.ts";

/** "stray": nobody caught the error, so it is a bug whatever its class. */
export function formatFailure(error: unknown, origin: "caught" | "stray" = "caught"): string[] {
  if (error instanceof ExitWith) return [`walsync: ${error.message}`];
  if (error instanceof WalsyncError && origin === "caught") {
    return [
      `walsync: ${error.code} ${messageOf(error)}`,
      ...causesOf(error).map((cause) => `because: ${messageOf(cause)}`),
      ...(error.hint === undefined ? [] : [`hint: ${error.hint}`]),
    ];
  }
  return [
    `walsync: bug: ${messageOf(error)}`,
    ...causesOf(error).map((cause) => `because: ${messageOf(cause)}`),
    ...(error instanceof Error && error.stack !== undefined ? [error.stack] : []),
    `hint: ${BUG_HINT}`,
  ];
}

/** The same as the fields of one event. */
export function failureFields(error: unknown, origin: "caught" | "stray" = "caught"): LogFields {
  const causes = causesOf(error).map(messageOf);
  const fields = { error: messageOf(error), ...(causes.length === 0 ? {} : { causes }) };
  if (error instanceof ExitWith) return { ...fields, status: error.exitStatus };
  if (error instanceof WalsyncError && origin === "caught") {
    return { code: error.code, ...fields, hint: error.hint, status: exitStatus(error) };
  }
  const stack = error instanceof Error ? error.stack : undefined;
  return { ...fields, stack, hint: BUG_HINT, status: EXIT_BUG };
}

// --- internal ---

const BUG_HINT =
  "This is a fault in walsync. Please report it with the lines above and the output of walsync --version.";

/** A chain longer than this explains nothing, and a chain may bite its tail. */
const MAX_CAUSES = 8;

/** The chain of causes, nearest first, without what the message before says already. */
function causesOf(error: unknown): unknown[] {
  const causes: unknown[] = [];
  const queue = directCauses(error);
  let previous = messageOf(error);
  for (let seen = 0; queue.length > 0 && seen < MAX_CAUSES; seen++) {
    const cause = queue.shift();
    if (!previous.includes(messageOf(cause))) causes.push(cause);
    previous = messageOf(cause);
    queue.unshift(...directCauses(cause));
  }
  return causes;
}

function directCauses(error: unknown): unknown[] {
  if (!(error instanceof Error)) return [];
  const several = error instanceof AggregateError ? error.errors : [];
  return error.cause === undefined ? [...several] : [error.cause, ...several];
}
