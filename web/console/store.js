// What the browser remembers between visits. A browser that forbids it just forgets.

const PREFIX = "dianchao.";

/** The remembered value, or `otherwise`. */
export function recall(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function remember(key, value) {
  try {
    localStorage.setItem(PREFIX + key, JSON.stringify(value));
  } catch {
    // Private windows and full disks: nothing depends on it.
  }
}
