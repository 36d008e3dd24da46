// What the console's scripts share. It changes nothing by itself.

export const token = () => document.querySelector("meta[name=csrf-token]")?.content ?? "";

/** An element of the page, or of `parent`. */
export const find = (selector, parent = document) => parent.querySelector(selector);

/** A new element with these properties and children. */
export function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

/** USD, as the server writes it. */
export function money(usd) {
  if (usd === null || usd === undefined) return "–";
  if (usd !== 0 && Math.abs(usd) < 0.01) return `$${Number(usd.toPrecision(2)).toFixed(9).replace(/0+$/, "")}`;
  return `$${usd !== 0 && Math.abs(usd) < 1 ? usd.toFixed(3).replace(/0$/, "") : usd.toFixed(2)}`;
}

/** A duration in milliseconds, as the server writes it. */
export function duration(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}

/** Yields the data of a response's server-sent events. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
  }
}

/** Copies text, and says so on the button for a moment. */
export async function copy(text, button) {
  await navigator.clipboard.writeText(text);
  const label = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = label; }, 1500);
}
