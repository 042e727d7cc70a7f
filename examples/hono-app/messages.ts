/** What the application and its sidecar say to each other. */
export type Question = "status" | "sync";

export interface DatabaseState {
  name: string;
  state: string;
  lagMs: number;
  error: string | null;
}

export type Answer =
  | { kind: "ready" }
  | { kind: "synced"; error: string | null }
  | { kind: "status"; databases: DatabaseState[] };
