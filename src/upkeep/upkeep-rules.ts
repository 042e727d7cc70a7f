/** What the layouts differ in, for whoever merges and removes files. */
import type { ChainFile } from "../chain/plan.ts";
import type { Layout } from "../destination/layout.ts";
import { LEVEL_RULES } from "./level-plan.ts";
import { type FrontFile, type MergePolicy, type Superseded, WINDOW_RULES } from "./merge-plan.ts";

export interface UpkeepRules {
  /** The increments of a listing that may be merged yet, in order. */
  frontOf(files: readonly ChainFile[], policy: MergePolicy): FrontFile[];
  /** What is to be merged next, oldest first, and the level of what it becomes. Null if there is nothing to do yet. */
  planMerge(
    front: readonly FrontFile[],
    policy: MergePolicy,
    nowMs: number,
  ): { files: FrontFile[]; level: number } | null;
  /** When the next window ends in which there is something to merge; infinite if there is none. */
  nextMergeMs(front: readonly FrontFile[], policy: MergePolicy): number;
  /** `front` without what no merge will ever touch again. */
  dropSettled(front: readonly FrontFile[], policy: MergePolicy, nowMs: number): FrontFile[];
  /** What may be removed because a wider file holds it. Whoever removes it makes sure of that one first. */
  planSuperseded(files: readonly ChainFile[], keepFineMs: number, nowMs: number): Superseded[];
  /** Keys of files that are never removed, whatever retention says. */
  mustStay(files: readonly ChainFile[]): ReadonlySet<string>;
}

export function upkeepRules(layout: Layout): UpkeepRules {
  return layout === "walsync" ? WINDOW_RULES : LEVEL_RULES;
}
