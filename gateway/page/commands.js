/** Slash commands of the message field. Pure. */

/** Commands in the order of the help, with their arguments; texts stand in `words.js` as `command.<name>`. */
export const COMMANDS = [
  { name: "join", args: "#room", needs: 1 },
  { name: "leave", args: "", needs: 0 },
  { name: "msg", args: "nick text", needs: 2 },
  { name: "me", args: "text", needs: 1 },
  { name: "nick", args: "name", needs: 1 },
  { name: "away", args: "[text]", needs: 0 },
  { name: "back", args: "", needs: 0 },
  { name: "who", args: "", needs: 0 },
  { name: "rooms", args: "", needs: 0 },
  { name: "help", args: "", needs: 0 },
];

/**
 * Reads what was typed. Returns `{ kind: "text", text }`, `{ kind: "command", name, args }` or
 * `{ kind: "error", word, params }`. A text that begins with a slash is typed with two.
 */
export function readInput(input) {
  if (!input.startsWith("/") || input.includes("\n")) return { kind: "text", text: input };
  if (input.startsWith("//")) return { kind: "text", text: input.slice(1) };
  const [, typed, rest] = /^\/(\S*)\s*(.*)$/su.exec(input);
  const command = COMMANDS.find(({ name }) => name === typed.toLowerCase());
  if (!command) return { kind: "error", word: "command.unknown", params: { name: "/" + typed } };
  const args = splitArguments(rest.trim(), command.needs);
  if (args.length < command.needs) return { kind: "error", word: "command.usage", params: { usage: usageOf(command.name) } };
  return { kind: "command", name: command.name, args };
}

export const usageOf = (name) => `/${name} ${COMMANDS.find((command) => command.name === name).args}`;

/** Adds the `#` that a room name begins with. Chinese keyboards type a wide one. */
export function roomName(typed) {
  const name = typed.trim().replace(/^\uff03/u, "#");
  return name === "" || name.startsWith("#") ? name : "#" + name;
}

/** Returns the key of what a message is addressed to: `#room`, or `@nick` without its optional `@`; `null` if nothing is left. */
export function targetOf(typed) {
  if (/^[#\uff03]/u.test(typed)) return roomName(typed);
  const nick = typed.trim().replace(/^[@\uff20]/u, "");
  return nick === "" ? null : "@" + nick;
}

/** Splits into at most `count` arguments; the last one keeps its spaces. */
function splitArguments(rest, count) {
  if (rest === "") return [];
  if (count < 2) return [rest];
  const match = /^(\S+)\s+(.+)$/su.exec(rest);
  return match ? [match[1], match[2]] : [rest];
}
