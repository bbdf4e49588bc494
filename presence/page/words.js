/** Texts of the page in English and Chinese. Pure. */

const en = {
  title: "Presence",
  docs: "API",
  gateways: "Gateways",
  rooms: "Rooms",
  users: "Users",
  events: "Events",
  "tile.users": "Users online",
  "tile.rooms": "Rooms",
  "tile.gateways": "Gateways",
  "tile.rate": "Messages a second",
  "tile.rate.note": "in rooms",
  "phase.connecting": "Connecting",
  "phase.live": "Live",
  "phase.reconnecting": "Reconnecting",
  "phase.unavailable": "Redis does not answer",
  "phase.overloaded": "The server is overloaded",
  since: "for {time}",
  stale: "The figures are of {time}.",
  seconds: "{n} s",
  minutes: "{n} min",
  hours: "{n} h",
  "gateway.users": { one: "{n} user", other: "{n} users" },
  "gateway.live": "live",
  "gateway.draining": "draining",
  "gateway.fenced": "declared dead",
  "gateway.none": "between gateways",
  "room.members": { one: "{n} member", other: "{n} members" },
  online: "online",
  away: "away",
  search: "Search users",
  "search.none": "No user matches.",
  "users.none": "No user is online.",
  "users.part": "The first {shown} of {total} users are listed.",
  "rooms.none": "No room has members.",
  "rooms.part": "The first {shown} of {total} rooms by name are listed and counted.",
  "gateways.none": "No gateway is running.",
  "events.none": "Changes appear here as they happen.",
  "event.online": "{nick} came online",
  "event.offline": "{nick} went offline",
  "event.join": "{nick} joined {room}",
  "event.leave": "{nick} left {room}",
  "event.rename": "{from} is now {to}",
  "event.gap": "Some events are missing here.",
  "reason.closed": "connection closed",
  "reason.timeout": "timed out",
  "reason.gateway_lost": "gateway lost",
  "reason.kicked": "removed by an operator",
  with_reason: "{text} ({reason})",
};

const zh = {
  title: "在线状态",
  docs: "API",
  gateways: "网关",
  rooms: "房间",
  users: "用户",
  events: "事件",
  "tile.users": "在线用户",
  "tile.rooms": "房间",
  "tile.gateways": "网关",
  "tile.rate": "每秒消息数",
  "tile.rate.note": "仅房间内",
  "phase.connecting": "正在连接",
  "phase.live": "实时",
  "phase.reconnecting": "正在重新连接",
  "phase.unavailable": "Redis 无响应",
  "phase.overloaded": "服务器过载",
  since: "已 {time}",
  stale: "数据截至 {time}。",
  seconds: "{n} 秒",
  minutes: "{n} 分钟",
  hours: "{n} 小时",
  "gateway.users": "{n} 位用户",
  "gateway.live": "运行中",
  "gateway.draining": "正在排空",
  "gateway.fenced": "已判定失效",
  "gateway.none": "正在切换网关",
  "room.members": "{n} 位成员",
  online: "在线",
  away: "离开",
  search: "搜索用户",
  "search.none": "没有匹配的用户。",
  "users.none": "没有用户在线。",
  "users.part": "共 {total} 位用户，列出前 {shown} 位。",
  "rooms.none": "没有房间有成员。",
  "rooms.part": "共 {total} 个房间，按名称列出并统计前 {shown} 个。",
  "gateways.none": "没有网关在运行。",
  "events.none": "变化会实时显示在这里。",
  "event.online": "{nick} 上线",
  "event.offline": "{nick} 下线",
  "event.join": "{nick} 加入 {room}",
  "event.leave": "{nick} 离开 {room}",
  "event.rename": "{from} 改名为 {to}",
  "event.gap": "此处缺少部分事件。",
  "reason.closed": "连接已关闭",
  "reason.timeout": "超时",
  "reason.gateway_lost": "网关失联",
  "reason.kicked": "被管理员移除",
  with_reason: "{text}（{reason}）",
};

export const LANGUAGES = { en, zh };

/** Returns the language for a list of preferences such as `navigator.languages`. */
export function chooseLanguage(preferences) {
  return preferences.map((tag) => tag.slice(0, 2).toLowerCase()).find((tag) => tag in LANGUAGES) ?? "en";
}

/**
 * Returns the text of a key. `{name}` is replaced by a parameter. A text with the forms `{ one, other }` is chosen by
 * the parameter `n`.
 */
export function say(lang, key, parameters = {}) {
  const found = LANGUAGES[lang][key];
  const text = typeof found === "string" ? found : found[formatter("PluralRules", lang).select(parameters.n)] ?? found.other;
  return text.replace(/\{(\w+)\}/g, (_, name) => format(lang, parameters[name]));
}

function format(lang, value) {
  return typeof value === "number" ? number(lang, value) : value;
}

const formatters = new Map();

/** Returns an object of `Intl`. Creating one takes longer than using it, so each is kept. */
function formatter(kind, lang, options = {}) {
  const key = JSON.stringify([kind, lang, options]);
  if (!formatters.has(key)) formatters.set(key, new Intl[kind](lang, options));
  return formatters.get(key);
}

/** Returns a number with at most one decimal place. */
export function number(lang, value) {
  return formatter("NumberFormat", lang, { maximumFractionDigits: 1 }).format(value);
}

/** Returns a share, 0 to 1, in whole percent. */
export function percent(lang, share) {
  return formatter("NumberFormat", lang, { style: "percent" }).format(share);
}

/** Returns a time of day with seconds. */
export function clock(lang, time) {
  const options = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  return formatter("DateTimeFormat", lang, options).format(time);
}

/** Returns a duration in its largest full unit: "12 s", "3 min". */
export function duration(lang, milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  if (seconds < 60) return say(lang, "seconds", { n: seconds });
  if (seconds < 3600) return say(lang, "minutes", { n: Math.floor(seconds / 60) });
  return say(lang, "hours", { n: Math.floor(seconds / 3600) });
}

/** Returns a name for the inside of a sentence: isolated, so that its direction does not reorder the sentence. */
export function isolate(name) {
  return `\u2068${name}\u2069`;
}

/** Returns the sentence of an entry of the feed. */
export function eventText(lang, { kind, reason, ...data }) {
  const names = Object.fromEntries(["nick", "room", "from", "to"].filter((key) => key in data).map((key) => [key, isolate(data[key])]));
  const text = say(lang, `event.${kind}`, names);
  const key = `reason.${reason}`;
  return key in LANGUAGES[lang] ? say(lang, "with_reason", { text, reason: say(lang, key) }) : text;
}
