// The figures of the last minute, as the server sends them.
import { find } from "./shared.js";

const figures = find("#figures"), state = find("#live-state"), hold = find("#hold");
let held = false;

function show(text, kind) {
  if (state.textContent === text) return; // it would be read aloud again
  state.textContent = text;
  state.className = `badge ${kind}`;
}

const source = new EventSource(figures.dataset.stream);
source.addEventListener("figures", (event) => {
  if (held) return;
  figures.innerHTML = JSON.parse(event.data).html;
  show("live", "good");
});
source.addEventListener("unavailable", () => show("Redis does not answer", "bad"));
source.onerror = () => (source.readyState === EventSource.CLOSED ? show("disconnected", "bad") : show("connecting", ""));

hold.addEventListener("click", () => {
  held = !held;
  hold.setAttribute("aria-pressed", held);
  show(held ? "held" : "live", held ? "" : "good");
});
addEventListener("pagehide", () => source.close());
