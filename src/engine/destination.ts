/** The settings that say where the files are, and the destination they mean. Shared by all commands and the library. */
import type { Destination } from "../destination/destination.ts";
import { Gate, limitConcurrency } from "../destination/limit.ts";
import { measured } from "../destination/measure.ts";
import { type DestinationSettings, openDestination } from "../destination/open.ts";
import { withRetry } from "../destination/retry.ts";
import { logEvent } from "../log.ts";
import { type EncryptionFlags, withEncryption } from "./encryption.ts";

export const DESTINATION_FLAGS = {
  bucket: {
    type: "string",
    short: "b",
    required: true,
    placeholder: "URL",
    description: "where the files are: s3://bucket/prefix, file:///dir or a path",
  },
  endpoint: {
    type: "string",
    env: "AWS_ENDPOINT_URL_S3",
    placeholder: "URL",
    description: "S3 server, if it is not AWS",
  },
  region: { type: "string", env: "AWS_REGION", default: "us-east-1", description: "region of the bucket" },
  "force-path-style": {
    type: "boolean",
    description: "put the bucket into the path of requests to AWS, too, as for every other server",
  },
  "storage-class": {
    type: "string",
    placeholder: "CLASS",
    description: "storage class of objects; default: the bucket's",
  },
  sse: {
    type: "choice",
    choices: ["AES256", "aws:kms"],
    description: "what the server encrypts objects with; default: as the bucket says",
  },
} as const;

export interface DestinationFlags {
  bucket: string;
  endpoint: string | undefined;
  region: string;
  forcePathStyle: boolean;
  storageClass: string | undefined;
  sse: string | undefined;
}

/** Requests in flight, for the whole process. */
const MAX_REQUESTS = 16;

/** The destination, measured, with bounded retries and requests, and encrypted if keys are given. Asks it nothing yet. */
export async function destinationOf(
  flags: DestinationFlags & Partial<EncryptionFlags>,
  env: Readonly<Record<string, string | undefined>>,
  signal: AbortSignal,
): Promise<Destination> {
  const destination = await openDestination(flags.bucket, destinationSettings(flags, env));
  const reliable = withRetry(limitConcurrency(measured(destination), new Gate(MAX_REQUESTS)), {
    signal,
    onRetry: ({ operation, attempt, delayMs, error }) => {
      logEvent("debug", "request is tried again", { reason: operation, attempt, delayMs: Math.round(delayMs), error });
    },
  });
  return await withEncryption(reliable, flags);
}

/** What the flags say about a destination, beside its address. */
export function destinationSettings(
  { endpoint, region, forcePathStyle, storageClass, sse }: Omit<DestinationFlags, "bucket">,
  env: Readonly<Record<string, string | undefined>>,
): DestinationSettings {
  return {
    endpoint,
    region,
    // Left open, it follows from the endpoint.
    forcePathStyle: forcePathStyle || undefined,
    storageClass,
    serverSideEncryption: sse,
    env,
  };
}
