/** Whether a bucket lets these credentials begin an upload in parts and give it up: large files go that way. */
import { AbortMultipartUploadCommand, CreateMultipartUploadCommand } from "@aws-sdk/client-s3";
import { DestinationError } from "../errors.ts";
import { type S3Options, S3Requests } from "./s3-requests.ts";

/** Begins an upload and gives it up. Nothing is stored. Throws `DestinationError` if either is refused. */
export async function probeMultipart(options: S3Options, key: string, signal: AbortSignal): Promise<void> {
  const requests = new S3Requests(options);
  try {
    const begin = new CreateMultipartUploadCommand(requests.at(key));
    const { UploadId } = await requests.run({ key, expected: "an upload in parts to begin", signal }, (abortSignal) =>
      requests.client.send(begin, { abortSignal }),
    );
    if (UploadId === undefined) {
      throw new DestinationError(`${requests.url}/${key}: expected the id of an upload, found none`, {
        retryable: false,
        hint: "Check the endpoint.",
      });
    }
    const giveUp = new AbortMultipartUploadCommand({ ...requests.at(key), UploadId });
    // Not under the caller's signal: what was begun has to be given up.
    await requests.run({ key, expected: "the upload to be given up", signal: undefined }, (abortSignal) =>
      requests.client.send(giveUp, { abortSignal }),
    );
  } finally {
    requests.client.destroy();
  }
}
