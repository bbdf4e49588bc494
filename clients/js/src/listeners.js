// Listeners of events. A listener that throws disturbs neither the others nor the caller.

export class Listeners {
  #byEvent = new Map();
  #onError;

  constructor(onError) {
    this.#onError = onError;
  }

  on(event, listener) {
    // A function of its own, so that the same listener can be added twice.
    const entry = (value) => listener(value);
    const entries = this.#byEvent.get(event) ?? new Set();
    this.#byEvent.set(event, entries.add(entry));
    return () => entries.delete(entry);
  }

  /** Returns the number of listeners of the event. */
  emit(event, value) {
    const entries = [...(this.#byEvent.get(event) ?? [])];
    for (const entry of entries) {
      try {
        entry(value);
      } catch (error) {
        if (event === "error") console.error(error);
        else this.#onError(error);
      }
    }
    return entries.length;
  }
}
