/** What `verify` has to say: one finding for each thing that is not as it should be. */

/** "error": a restore point cannot be restored, or an index is wrong. "warning": it can, but less is proven than should be. */
export type Severity = "error" | "warning" | "note";

export type FindingCode =
  | "file-damaged" //       a file is not what its checksum, its header or its key says
  | "file-missing" //       it is listed, and cannot be read
  | "sha256-differs" //     its bytes are not those that were uploaded
  | "sha256-missing" //     nothing says which bytes were uploaded
  | "chain-gap" //          a file between two others is missing
  | "checksum-differs" //   a file does not give the state that it claims, or does not follow on from the one before
  | "no-snapshot" //        nothing can be restored
  | "unreachable" //        increments before the first snapshot
  | "encrypted" //          files cannot be read without an identity: what is in them is not proven
  | "no-checksums" //       nothing tells the database checksums of some files
  | "manifest-missing" //   there is no manifest, or an empty one
  | "manifest-damaged" //   it cannot be read
  | "manifest-differs" //   it says something else than the files
  | "manifest-orphan" //    it lists a file that is not there
  | "manifest-behind"; //   files are missing in it

export interface Finding {
  /** The object, or the name of the database if it is about all of them. */
  key: string;
  code: FindingCode;
  message: string;
  severity: Severity;
}

const SEVERITY: Record<FindingCode, Severity> = {
  "file-damaged": "error",
  "file-missing": "error",
  "sha256-differs": "error",
  "sha256-missing": "warning",
  "chain-gap": "error",
  "checksum-differs": "error",
  "no-snapshot": "error",
  unreachable: "warning",
  encrypted: "warning",
  "no-checksums": "note",
  "manifest-missing": "error",
  "manifest-damaged": "error",
  "manifest-differs": "error",
  "manifest-orphan": "error",
  "manifest-behind": "warning",
};

export function finding(key: string, code: FindingCode, message: string): Finding {
  return { key, code, message, severity: SEVERITY[code] };
}
