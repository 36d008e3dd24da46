// What every page does: copy buttons, dialogs that close, filters that apply at once.
import { copy, find } from "./shared.js";

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.copy) copy(find(button.dataset.copy).textContent, button);
  if ("close" in button.dataset) button.closest("dialog").close();
});

document.addEventListener("change", (event) => {
  if (event.target.matches("form[data-auto] select, form[data-auto] input")) event.target.form.requestSubmit();
});

// On a narrow screen the pages are a line that is longer than the screen.
find("nav a[aria-current=page]")?.scrollIntoView({ block: "nearest", inline: "center" });

// A form sent twice would make two keys.
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  const button = event.submitter;
  if (button) setTimeout(() => { button.disabled = true; });
});
// The page may come back from the browser's cache.
addEventListener("pageshow", () => document.querySelectorAll("form[method=post] button").forEach((each) => { each.disabled = false; }));
