// Elements without innerHTML: whatever came from the wire can only ever become text.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/**
 * Makes an element. Keys of `traits` that start with "on" are listeners, "class" and what has a "-" or is no
 * property of the element are attributes, all else are properties. Null children are left out.
 */
export function el(tag, traits = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(traits)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || !(name in element)) element.setAttribute(name === "class" ? "class" : name, value);
    else element[name] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Runs `draw` at most once a frame however often the returned function is called. */
export function oncePerFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
}
