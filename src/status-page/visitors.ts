/**
 * Who may look: the watch's own page, and nobody else's. Without a password any web page that its user has open could ask
 * a port of this host; a browser tells which one asks. Pure.
 */
import { hostname } from "node:os";

/**
 * Why a request is refused, or null. `isLinkable`: another page may lead there. The Host header has to be an address, "localhost" or the name of this host: a foreign
 * name that leads here (DNS rebinding) is how a foreign page would read what this one may. `Sec-Fetch-Site` is what browsers
 * say of requests that another page makes.
 */
export function refusalOf(headers: Headers, isLinkable: boolean): string | null {
  const host = headers.get("host") ?? "";
  if (!isOwnName(host)) {
    return `Host: expected an address, localhost or ${hostname()}, found ${JSON.stringify(host)}. A proxy before this port has to set it.`;
  }
  const site = headers.get("sec-fetch-site");
  const isLink =
    isLinkable && headers.get("sec-fetch-mode") === "navigate" && headers.get("sec-fetch-dest") === "document";
  if (site === null || site === "same-origin" || site === "none" || isLink) return null;
  return `Sec-Fetch-Site: expected the page itself to ask, found ${JSON.stringify(site)}.`;
}

// --- internal ---

const IPV4 = /^\d{1,3}(\.\d{1,3}){3}$/;

function isOwnName(host: string): boolean {
  const name = /^(\[[0-9a-f:.]+\]|[^:[\]@/\s]+)(:\d{1,5})?$/i.exec(host)?.[1]?.toLowerCase();
  if (name === undefined) return false;
  if (name.startsWith("[") || IPV4.test(name)) return true;
  return name === "localhost" || name.endsWith(".localhost") || name === hostname().toLowerCase();
}
