// The members of a room: loaded as a whole, and kept up to date by `presence` events.

const toMember = ({ nick, user, status = "online", text = "" }) => ({ nick, ...(user && { user }), status, text });

export class Members {
  map = new Map();
  #load;
  #report;
  /** Events that arrived while the list is loaded. */
  #meanwhile = null;
  #loading;

  /** `load(cursor)` returns a page. `report(event)` is given every change. */
  constructor(load, report) {
    this.#load = load;
    this.#report = report;
  }

  /** Loads the list. A load that is under way is replaced, and ends with this one. */
  load() {
    return (this.#loading = this.#loadAll((this.#meanwhile = [])));
  }

  async #loadAll(meanwhile) {
    const items = [];
    let cursor;
    do {
      const page = await this.#load(cursor);
      items.push(...page.items);
      cursor = page.next_cursor;
    } while (cursor);
    if (this.#meanwhile !== meanwhile) return this.#loading;
    this.#meanwhile = null;
    this.map.clear();
    for (const item of items) this.map.set(item.nick, toMember(item));
    for (const event of meanwhile) this.#change(event);
    this.#report({ ...this.#change({}), resync: true });
  }

  apply(event) {
    this.#meanwhile?.push(event);
    this.#report(this.#change(event));
  }

  #change({ left = [], renamed = [], joined = [], status = [] }) {
    const changes = { joined: joined.map(toMember), left, renamed, status: status.map(toMember), resync: false };
    for (const { nick } of left) this.map.delete(nick);
    for (const { from, to } of renamed) {
      const member = this.map.get(to) ?? this.map.get(from) ?? toMember({});
      this.map.delete(from);
      this.map.set(to, { ...member, nick: to });
    }
    for (const member of changes.joined) this.map.set(member.nick, member);
    for (const member of changes.status) this.map.set(member.nick, { ...this.map.get(member.nick), ...member });
    return changes;
  }
}
