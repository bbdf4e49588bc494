// Listeners of events. A listener that throws disturbs neither the others nor the caller.

export class Listeners {
  #byEvent = new Map();
  #onError;

  constructor(onError) {
    this.#onError = onError;
  }

  on(event, listener) {
    const listeners = this.#byEvent.get(event) ?? new Set();
    this.#byEvent.set(event, listeners);
    // A function of its own, so that the same listener can be added twice.
    const entry = (value) => listener(value);
    listeners.add(entry);
    return () => listeners.delete(entry) && undefined;
  }

  has(event) {
    return (this.#byEvent.get(event)?.size ?? 0) > 0;
  }

  emit(event, value) {
    for (const listener of [...(this.#byEvent.get(event) ?? [])]) {
      try {
        listener(value);
      } catch (error) {
        this.#onError(error);
      }
    }
  }
}
