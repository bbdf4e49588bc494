/**
 * Sign-in by the page that embeds this one in a frame: it is asked for tokens by messages. Nothing is read from the URL.
 *
 * The browser shows this page only inside of the sites of `listen.page_embedders`. An answer counts only if it comes
 * from the window directly around this one, and always from the same origin.
 */

/** Types of the messages: the question of this page, and the answer of the page around it. */
const QUESTION = "parley/get-token";
const ANSWER = "parley/token";

/** True inside of another page. */
export const isEmbedded = (view = window) => view.parent !== view;

/** Returns a function that asks the embedding page for a token. It resolves with `null` for a guest. */
export function tokenSource(view = window) {
  // Where the browser does not name the site around, the first answer does.
  let site = view.location.ancestorOrigins?.[0] ?? null;
  let questions = 0;
  return ({ signal }) => new Promise((resolve, reject) => {
    const id = (questions += 1);
    const settle = (end, value) => {
      view.removeEventListener("message", receive);
      signal.removeEventListener("abort", stop);
      end(value);
    };
    const stop = () => settle(reject, signal.reason);
    const receive = ({ source, origin, data }) => {
      const isAnswer = data?.type === ANSWER && data.id === id;
      if (source !== view.parent || !isAnswer || origin === "null" || origin !== (site ?? origin)) return;
      site = origin;
      if (typeof data.token === "string" || data.token === null) settle(resolve, data.token);
      else settle(reject, new TypeError("the answer has no token"));
    };
    view.addEventListener("message", receive);
    signal.addEventListener("abort", stop);
    // The question has no secret, so a page of any site may read it.
    view.parent.postMessage({ type: QUESTION, id }, site ?? "*");
  });
}

/** Returns `sub` and `nick` of a token. They are not verified: the server does that. */
export function claimsOf(token) {
  try {
    const text = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
    const { sub = null, nick = null } = JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (char) => char.charCodeAt(0))));
    return { sub, nick };
  } catch {
    return { sub: null, nick: null };
  }
}
