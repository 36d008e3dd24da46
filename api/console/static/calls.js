// Calls as they end: the server sends their rows.
import { find } from "./shared.js";

const button = find("#live"), state = find("#live-state"), rows = find("#rows");
const MOST = 200; // rows that stay on the page
let source = null;

button?.addEventListener("click", () => (source ? end("") : begin()));

function begin() {
  source = new EventSource(button.dataset.stream);
  button.setAttribute("aria-pressed", "true");
  state.textContent = "Waiting for calls";
  source.addEventListener("calls", (event) => {
    const template = document.createElement("template");
    template.innerHTML = JSON.parse(event.data).html;
    const fresh = template.content.querySelectorAll("tr");
    rows.prepend(template.content);
    find(".table").hidden = false;
    find("#nothing")?.remove();
    while (rows.children.length > MOST) rows.lastElementChild.remove();
    state.textContent = `${fresh.length} new`;
  });
  source.addEventListener("unavailable", () => { state.textContent = "The account does not answer"; });
  source.onerror = () => {
    if (source?.readyState === EventSource.CLOSED) end("Disconnected");
    else state.textContent = "Connecting again";
  };
}

function end(text) {
  source?.close();
  source = null;
  button.setAttribute("aria-pressed", "false");
  state.textContent = text;
}
addEventListener("pagehide", () => source && end(""));
