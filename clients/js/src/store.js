// Stored state under the names of one session. A storage that throws is replaced by memory.

export class Store {
  #storage;
  #prefix;
  #memory = new Map();

  constructor(storage, name) {
    this.#storage = storage;
    this.#prefix = `${name}:`;
  }

  /** Returns the value that was put under a key, or `null`. A full storage still has the value before it. */
  get(key) {
    return this.#memory.get(key) ?? this.#attempt((storage) => JSON.parse(storage.getItem(this.#prefix + key))) ?? null;
  }

  /** Stores a JSON value; `null` removes it. */
  put(key, value) {
    const name = this.#prefix + key;
    this.#memory.delete(key);
    const isStored = this.#attempt((storage) => {
      if (value === null) storage.removeItem(name);
      else storage.setItem(name, JSON.stringify(value));
      return true;
    });
    if (!isStored) this.#memory.set(key, value);
  }

  #attempt(access) {
    try {
      return this.#storage && access(this.#storage);
    } catch {
      return null;
    }
  }
}
