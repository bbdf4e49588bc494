/** Signs the user in by tokens of the embedding page. A page alone has none: its user types a name. */
import { claimsOf, isEmbedded, tokenSource } from "./embed.js";
import { forgetAll, loadPrefs, savePrefs } from "./prefs.js";

/** Time for the embedding page to answer. */
const ASK_MS = 10_000;

/** Returns `{ ask, options }`, or `null` for a page alone. */
export function createSignIn() {
  if (!isEmbedded()) return null;
  const source = tokenSource();
  let first = null;
  let user = null;

  /** A token of another user is not for this page load. */
  async function getToken(options) {
    const token = await source(options);
    if (token !== null && claimsOf(token).sub !== user) {
      location.reload();
      throw new Error("the user has changed");
    }
    return token;
  }

  return {
    /** Asks for the first token. Returns the nickname that it names, or `null`, and if the stored user is another one. */
    async ask() {
      first = await source({ signal: AbortSignal.timeout(ASK_MS) });
      const { sub, nick } = first === null ? { sub: null, nick: null } : claimsOf(first);
      user = sub;
      const { user: stored = null, lang, sound } = loadPrefs();
      const isOther = stored !== user;
      if (isOther) {
        forgetAll();
        savePrefs({ user, lang, sound });
      }
      return { nick, isOther };
    },
    /** Options of the library. Users have sessions of their own, also in tabs that are still open. */
    options: () => ({ token: first ?? undefined, getToken, name: user === null ? "parley" : `parley.${user}` }),
  };
}
