/** What a failed S3 request means. Pure, and without the SDK: it looks only at the shape of what was thrown. */
import { DestinationError, messageOf } from "../errors.ts";

export interface RequestContext {
  /** The destination, with the key if the request had one. */
  subject: string;
  /** "the object to be written": completes "expected". */
  expected: string;
  bucket: string;
  region: string;
  /** Host of the endpoint, or null for AWS. */
  endpointHost: string | null;
  /** Never to appear in a message, whatever a server sends back. */
  secrets: readonly string[];
}

/** The parts of an SDK or fetch error that decide. */
export interface FailureParts {
  /** S3 error code ("SlowDown"), or of the socket ("ECONNREFUSED"); "" if there is none. */
  code: string;
  status: number | undefined;
  message: string;
}

export function failureParts(error: unknown): FailureParts {
  const shape = (typeof error === "object" && error !== null ? error : {}) as {
    name?: unknown;
    Code?: unknown;
    code?: unknown;
    $metadata?: { httpStatusCode?: number };
    $response?: { statusCode?: number };
  };
  const status = shape.$metadata?.httpStatusCode ?? shape.$response?.statusCode;
  const codes = [shape.Code, shape.code, status === undefined ? "" : shape.name];
  const code = codes.find((one): one is string => typeof one === "string" && one !== "") ?? "";
  // Without a body (every answer to HEAD) the SDK makes up a name: it says no more than the status.
  const isMadeUp = /^(Unknown|UnknownError|Error|NotFound|[0-9]+)$/.test(code);
  return { code: isMadeUp ? "" : code, status, message: messageOf(error).slice(0, MESSAGE_LENGTH_MAX) };
}

/** The error of a destination for anything that a request threw, except the signal's own reason. */
export function classifyFailure(error: unknown, context: RequestContext): DestinationError {
  if (error instanceof DestinationError) return error;
  const parts = failureParts(error);
  const { retryable, hint } = judge(parts, context);
  const what = [parts.status, parts.code].filter((part) => part !== undefined && part !== "").join(" ");
  const message = redact(parts.message, context.secrets);
  const isTold = message === "" || /^Unknown(Error)?$/.test(message) || what.endsWith(message);
  const found = isTold ? what || "no answer" : `${what}${what === "" ? "" : ": "}${message}`;
  return new DestinationError(`${context.subject}: expected ${context.expected}, found ${found}`, {
    retryable,
    status: parts.status,
    hint,
    // The SDK's own error drags request and response along, headers included; its text is all that is kept.
    cause: new Error(redact(`${error instanceof Error ? error.name : "thrown"}: ${parts.message}`, context.secrets)),
  });
}

/** True if the server says that it lacks what was asked for, as opposed to refusing it. */
export function isNotImplemented(error: unknown): boolean {
  const { code, status } = failureParts(error);
  return status === 501 || code === "NotImplemented";
}

/**
 * True if the answer says that there is no such key. Other things are reported with 404 too (a bucket, a user), and none
 * of them may read as "no such file". Without a code it is for the caller to find out whether the bucket is there.
 */
export function isMissingKey(error: unknown): boolean {
  const { code, status } = failureParts(error);
  return code === "NoSuchKey" || (status === 404 && code === "");
}

// --- internal ---

/** What a server says may be a whole web page. */
const MESSAGE_LENGTH_MAX = 500;
const CREDENTIALS_HINT = "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.";

function judge(parts: FailureParts, context: RequestContext): { retryable: boolean; hint: string | undefined } {
  const never = (hint: string) => ({ retryable: false, hint });
  const later = (hint?: string) => ({ retryable: true, hint });
  const at = context.endpointHost ?? "AWS";
  switch (parts.code) {
    case "NoSuchBucket":
      return never(`There is no bucket "${context.bucket}" at ${at}: check its name and the endpoint, or create it.`);
    case "InvalidBucketName":
      return never(`"${context.bucket}" cannot be the name of a bucket.`);
    case "InvalidAccessKeyId":
    case "XAdminUserNotFound": // versitygw
      return never(`${at} does not know this access key. Check AWS_ACCESS_KEY_ID, and that it belongs there.`);
    case "SignatureDoesNotMatch":
      return never("Check AWS_SECRET_ACCESS_KEY: it does not belong to this access key.");
    case "ExpiredToken":
    case "TokenRefreshRequired":
    case "InvalidToken":
      return never("Fetch new temporary credentials and set AWS_SESSION_TOKEN with them.");
    case "AccessDenied":
    case "AllAccessDisabled":
    case "AccountProblem":
      return never(`Allow this access key to list, read, write and delete in bucket "${context.bucket}".`);
    case "RequestTimeTooSkewed":
      return never("Set the clock of this machine: it differs from the server's by more than 15 minutes.");
    case "AuthorizationHeaderMalformed":
    case "PermanentRedirect":
    case "IllegalLocationConstraintException":
    case "TemporaryRedirect":
      return never(regionHint(context));
    case "SlowDown":
    case "RequestTimeout":
    case "Throttling":
    case "ThrottlingException":
    case "TooManyRequests":
    case "InternalError":
    case "ServiceUnavailable":
    case "OperationAborted":
    case "ConditionalRequestConflict":
    case "NoSuchUpload":
    case "IncompleteBody":
    case "BadDigest":
    case "XAmzContentSHA256Mismatch":
      return later();
  }
  if (CERTIFICATE_CODES.test(parts.code) || CERTIFICATE_CODES.test(parts.message)) {
    return never(`The certificate of ${at} is not trusted here. Check the endpoint, or set NODE_EXTRA_CA_CERTS.`);
  }
  const { status } = parts;
  if (status === undefined) return judgeWithoutAnswer(parts, at);
  if (status === 501) return never(`${at} does not offer this operation.`);
  if (status >= 500 || status === 408 || status === 409 || status === 425 || status === 429) return later();
  if (status >= 300 && status < 400) return never(regionHint(context));
  if (status === 401 || status === 403) return never(`${CREDENTIALS_HINT} They must be allowed to use this bucket.`);
  if (status >= 200 && status < 300) return never(`Check that ${at} is an S3 endpoint: its answer is not one of S3.`);
  return { retryable: false, hint: undefined };
}

const CERTIFICATE_CODES = /CERT|SELF_SIGNED|UNABLE_TO_VERIFY|UNABLE_TO_GET_ISSUER/;

function judgeWithoutAnswer(parts: FailureParts, at: string): { retryable: boolean; hint: string | undefined } {
  if (/URL|protocol/i.test(parts.message) && /invalid|unsupported|must be/i.test(parts.message)) {
    return { retryable: false, hint: `Check the endpoint: ${at}.` };
  }
  return { retryable: true, hint: `Check the network, and that ${at} is the right endpoint.` };
}

function regionHint(context: RequestContext): string {
  return `Check --endpoint and AWS_REGION: bucket "${context.bucket}" is not in region "${context.region}".`;
}

function redact(text: string, secrets: readonly string[]): string {
  // Shorter ones are nobody's secret, and would only garble the message.
  return secrets.filter((secret) => secret.length >= 8).reduce((rest, secret) => rest.replaceAll(secret, "***"), text);
}
