/** Texts of the page in English and Chinese, and their formats. Pure. */
import { en } from "./words-en.js";
import { zh } from "./words-zh.js";

export const LANGUAGES = { en, zh };

/** The language for a list of preferences such as `navigator.languages`. */
export function chooseLanguage(preferences) {
  const known = preferences.map((tag) => tag.slice(0, 2).toLowerCase()).find((tag) => tag in LANGUAGES);
  return known ?? "en";
}

/**
 * Returns the text of a key. `{name}` is replaced by a parameter. A text with the forms `{ one, other }` is chosen by
 * the parameter `n`.
 */
export function say(lang, key, params = {}) {
  const entry = LANGUAGES[lang][key];
  const text = typeof entry === "string" ? entry : entry[pluralRules(lang).select(params.n)] ?? entry.other;
  return text.replace(/\{(\w+)\}/g, (_, name) => format(lang, params[name]));
}

/** A name inside a sentence: isolated, so that its direction does not reorder the sentence. */
export function isolate(name) {
  return `\u2068${name}\u2069`;
}

/** Names as a list of at most three, the others counted: "ann, bob and 3 others". */
export function nameList(lang, names) {
  const shown = names.length > 4 ? names.slice(0, 2) : names;
  const others = names.length - shown.length;
  const parts = shown.map(isolate);
  if (others > 0) parts.push(say(lang, "others", { n: others }));
  return listFormat(lang).format(parts);
}

/** Text of a refusal, by its code where there is one for people. */
export function errorText(lang, { code, message }, name = "") {
  const key = `error.${code}`;
  return key in LANGUAGES[lang] ? say(lang, key, { name: isolate(name) }) : say(lang, "error.other", { reason: message });
}

/** Time of day, such as "14:05". */
export function clock(lang, time) {
  return dateFormat(lang, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" }).format(time);
}

/** Full date and time. */
export function fullTime(lang, time) {
  return dateFormat(lang, { dateStyle: "full", timeStyle: "medium" }).format(time);
}

/** Name of a day relative to `now`: today, yesterday or its date. */
export function dayName(lang, time, now) {
  const days = Math.round((startOfDay(now) - startOfDay(time)) / 86_400_000);
  if (days === 0) return say(lang, "today");
  if (days === 1) return say(lang, "yesterday");
  const sameYear = new Date(time).getFullYear() === new Date(now).getFullYear();
  return dateFormat(lang, { weekday: "long", month: "long", day: "numeric", ...(sameYear ? {} : { year: "numeric" }) }).format(time);
}

/** Local day of a time, as a key. */
export function dayOf(time) {
  const date = new Date(time);
  return `${date.getFullYear()}-${date.getMonth() + 1}-${date.getDate()}`;
}

/** A duration in seconds with one decimal below ten. */
export function seconds(lang, ms) {
  const digits = ms < 10_000 ? 1 : 0;
  return numberFormat(lang, digits).format(ms / 1000);
}

const cached = (make) => {
  const cache = new Map();
  return (lang, options) => {
    const key = lang + JSON.stringify(options ?? null);
    if (!cache.has(key)) cache.set(key, make(locale(lang), options));
    return cache.get(key);
  };
};
const dateFormat = cached((tag, options) => new Intl.DateTimeFormat(tag, options));
const listFormat = cached((tag) => new Intl.ListFormat(tag === "en" ? "en-GB" : tag, { type: "conjunction" }));
const pluralRules = cached((tag) => new Intl.PluralRules(tag));
const numberFormat = cached((tag, digits) => new Intl.NumberFormat(tag, { minimumFractionDigits: digits, maximumFractionDigits: digits }));

function locale(lang) {
  return lang === "zh" ? "zh-CN" : "en";
}

function format(lang, value) {
  return typeof value === "number" ? numberFormat(lang, Number.isInteger(value) ? 0 : 1).format(value) : String(value ?? "");
}

function startOfDay(time) {
  return new Date(time).setHours(0, 0, 0, 0);
}
