/** A real browser for tests: Debian's Chromium. A machine without it skips those tests, loudly; CI may not. */
import { afterAll } from "bun:test";
import { accessSync, constants } from "node:fs";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";

const PATHS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** Path of the browser, or null if none is installed here. Throws in CI (CI=true), where nothing may be skipped. */
export function requireChromium(): string | null {
  const path = [process.env.WALSYNC_CHROMIUM ?? "", ...PATHS].find(isExecutable);
  if (path !== undefined) return path;
  const missing = `expected Chromium, found none of ${PATHS.join(", ")}`;
  if (process.env.CI === "true") throw new Error(missing);
  console.warn(`SKIPPED: tests in a browser: ${missing}. Set WALSYNC_CHROMIUM, or install the package chromium.`);
  return null;
}

/** The browser, started by the first page of a test file and ended with it. */
export class TestBrowser {
  readonly #path: string;
  #browser: Promise<Browser> | null = null;

  constructor(path: string) {
    this.#path = path;
    afterAll(async () => (await this.#browser)?.close());
  }

  /** A page in a context of its own; `complaints` are errors of its script and what its policy refused. */
  async open(options: BrowserContextOptions = {}): Promise<{ page: Page; complaints: string[] }> {
    // Root, as in a container, has no sandbox; what is opened is our own page.
    this.#browser ??= chromium.launch({ executablePath: this.#path, args: ["--no-sandbox"] });
    const context = await (await this.#browser).newContext({ timezoneId: "UTC", locale: "en-GB", ...options });
    context.setDefaultTimeout(PATIENCE_MS);
    const page = await context.newPage();
    const complaints: string[] = [];
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("console", (message) => {
      // A connection that a test cuts is no fault of the page.
      if (message.type() === "error" && !/net::ERR_|Failed to load resource/.test(message.text())) {
        complaints.push(message.text());
      }
    });
    return { page, complaints };
  }
}

// --- internal ---

const PATIENCE_MS = 8000;

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return path !== "";
  } catch {
    return false;
  }
}
