/** The presence page: renders the state into `index.html` as it changes. All text is inserted as text, never as HTML. */
import { start } from "./source.js";
import { connection, gatewayRows, initialState, messageRate, reduce, roomRows, userRows } from "./state.js";
import { chooseLanguage, clock, duration, eventText, number, percent, say } from "./words.js";

const lang = chooseLanguage(navigator.languages);
const t = (key, parameters) => say(lang, key, parameters);
const part = (id) => document.getElementById(id);
let state = initialState;
/** The state that the page shows; null before the first one. */
let shown = null;
let isScheduled = false;

function dispatch(action) {
  state = reduce(state, action);
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(render);
}

function render() {
  isScheduled = false;
  renderConnection();
  renderTiles();
  if (hasChanged("gateways")) renderList("gateways", gatewayRows(state), ({ incarnation }) => incarnation, gatewayNode, updateGateway);
  if (hasChanged("rooms")) renderList("rooms", roomRows(state), ({ room }) => room, roomNode, updateRoom);
  if (hasChanged("users", "gateways", "search")) renderList("users", userRows(state), ({ nick }) => nick, userNode, updateUser);
  if (hasChanged("feed")) renderList("events", state.feed, ({ id }) => id, eventNode, () => {});
  renderNotes();
  shown = state;
}

function hasChanged(...parts) {
  return shown === null || parts.some((key) => state[key] !== shown[key]);
}

function renderConnection() {
  const { phase, since } = connection(state);
  const isStale = since !== null && state.readAt !== null;
  part("link").dataset.phase = phase;
  setText(part("phase"), t(`phase.${phase}`));
  setText(part("since"), since === null ? "" : t("since", { time: duration(lang, Date.now() - since) }));
  showNotes("stale", [isStale && t("stale", { time: clock(lang, state.readAt) })]);
}

function renderTiles() {
  const rate = messageRate(state);
  setText(part("tile-users"), figure(state.stats?.users_online));
  setText(part("tile-rooms"), figure(state.stats?.rooms));
  setText(part("tile-gateways"), figure(state.stats?.gateways));
  setText(part("tile-rate"), figure(rate));
}

function renderNotes() {
  if (state.readAt === null) return;
  const { stats, users, rooms, gateways, feed, hasMoreUsers, hasMoreRooms } = state;
  const isFound = part("users").childElementCount > 0;
  showNotes("users-note", [
    users.length === 0 && t("users.none"),
    users.length > 0 && !isFound && t("search.none"),
    hasMoreUsers && t("users.part", { shown: users.length, total: stats.users_online }),
  ]);
  showNotes("rooms-note", [
    rooms.length === 0 && t("rooms.none"),
    hasMoreRooms && t("rooms.part", { shown: rooms.length, total: stats.rooms }),
  ]);
  showNotes("gateways-note", [gateways.length === 0 && t("gateways.none")]);
  showNotes("events-note", [feed.length === 0 && t("events.none")]);
}

/** Makes the children of a list show these rows. A row keeps its element, so scrolling and selected text stay. */
function renderList(id, rows, keyOf, create, update) {
  const list = part(id);
  const nodes = new Map([...list.children].map((node) => [node.dataset.key, node]));
  const keys = new Set(rows.map(keyOf));
  for (const [key, node] of nodes) if (!keys.has(key)) node.remove();
  let next = list.firstElementChild;
  for (const row of rows) {
    const node = nodes.get(keyOf(row)) ?? create(row);
    node.dataset.key = keyOf(row);
    update(node, row);
    if (node === next) next = next.nextElementSibling;
    else list.insertBefore(node, next);
  }
}

function gatewayNode({ node, version }) {
  return el("li", "card", el("div", "line", name(node), el("span", "tag")), el("div", "line", el("span", "count"), el("span", "muted share")), bar(), el("p", "muted", version));
}

function updateGateway(node, { state: lease, users, share }) {
  node.dataset.state = lease;
  setText(node.querySelector(".tag"), t(`gateway.${lease}`));
  setText(node.querySelector(".count"), t("gateway.users", { n: users }));
  setText(node.querySelector(".share"), percent(lang, share));
  setShare(node, share);
}

function roomNode({ room }) {
  return el("li", "row", el("div", "line", name(room), el("span", "muted count")), bar());
}

function updateRoom(node, { member_count, share }) {
  setText(node.querySelector(".count"), t("room.members", { n: member_count }));
  setShare(node, share);
}

function userNode({ nick }) {
  return el("li", "row user", el("span", "dot"), el("div", "who", name(nick), el("span", "muted status")), el("span", "tag"));
}

function updateUser(node, { status, text, gateway }) {
  node.dataset.status = status;
  setText(node.querySelector(".status"), text ? `${t(status)} · ${text}` : t(status));
  setText(node.querySelector(".tag"), gateway ?? t("gateway.none"));
}

function eventNode(event) {
  const time = el("time", "muted", clock(lang, event.time));
  time.dateTime = new Date(event.time).toISOString();
  const node = el("li", "row event", time, el("span", "text", eventText(lang, event)));
  node.dataset.kind = event.kind;
  return node;
}

function el(tag, className, ...children) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...children);
  return node;
}

function name(text) {
  const node = el("bdi", "name", text);
  node.title = text;
  return node;
}

/** A bar repeats a number that stands beside it, so screen readers skip it. */
function bar() {
  const node = el("div", "bar", el("div", "fill"));
  node.setAttribute("aria-hidden", "true");
  return node;
}

function setShare(node, share) {
  node.style.setProperty("--share", share.toFixed(4));
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows the notes that are texts, and hides the element if there are none. */
function showNotes(id, notes) {
  const text = notes.filter(Boolean).join(" ");
  part(id).hidden = text === "";
  setText(part(id), text);
}

function figure(value) {
  if (value == null) return "–";
  return number(lang, value < 100 ? value : Math.round(value));
}

document.documentElement.lang = lang;
document.title = `Parley · ${t("title")}`;
for (const node of document.querySelectorAll("[data-text]")) setText(node, t(node.dataset.text));
const search = part("search");
search.placeholder = t("search");
search.setAttribute("aria-label", t("search"));
search.addEventListener("input", () => dispatch({ type: "search", text: search.value }));
setInterval(() => { if (connection(state).since !== null) renderConnection(); }, 1000);
dispatch({ type: "stream", phase: "connecting", at: Date.now() });
start(dispatch);
