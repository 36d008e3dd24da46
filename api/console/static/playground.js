// The playground: calls one or two models, shows their streams and measures them.
import { duration, element, events, find, money, token } from "./shared.js";
import { samples } from "./samples.js";

const form = find("#playground");
if (form) start();

function start() {
  const message = find("#message"), send = find("#send"), stop = find("#stop");
  const compare = find("#compare"), images = find("#images"), thumbnails = find(".thumbnails");
  const columns = [...document.querySelectorAll(".column")].map(column);
  let pictures = []; // data URLs
  let running = null; // an AbortController

  const shown = () => columns.filter((each) => !each.root.hidden);

  compare.addEventListener("click", () => {
    const two = columns[1].root.hidden;
    columns[1].root.hidden = !two;
    find(".columns").classList.toggle("two", two);
    compare.setAttribute("aria-pressed", two);
  });
  find("#clear").addEventListener("click", () => { running?.abort(); columns.forEach((each) => each.clear()); message.focus(); });
  stop.addEventListener("click", () => running?.abort());
  message.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
  });
  images.addEventListener("change", async () => {
    pictures.push(...await Promise.all([...images.files].map(dataUrl)));
    images.value = "";
    showPictures();
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = message.value.trim(), extra = parameters();
    if ((!text && !pictures.length) || running || !extra) return;
    running = new AbortController();
    send.hidden = true; stop.hidden = false; stop.focus();
    const content = pictures.length
      ? [...(text ? [{ type: "text", text }] : []), ...pictures.map((url) => ({ type: "image_url", image_url: { url } }))]
      : text;
    message.value = ""; pictures = []; showPictures();
    await Promise.all(shown().map((each) => each.ask(content, extra, running.signal)));
    running = null;
    stop.hidden = true; send.hidden = false; message.focus();
  });

  const dialog = find("#code-dialog"), code = find("#code-text");
  const tabs = [...dialog.querySelectorAll("[role=tab]")];
  find("#code").addEventListener("click", () => { choose(tabs[0]); dialog.showModal(); });
  for (const tab of tabs) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { const next = tabs.at((tabs.indexOf(tab) + step) % tabs.length); choose(next); next.focus(); }
    });
  }

  function choose(tab) {
    for (const each of tabs) {
      each.setAttribute("aria-selected", each === tab);
      each.tabIndex = each === tab ? 0 : -1;
    }
    code.setAttribute("aria-labelledby", tab.id);
    const pending = message.value.trim() || (columns[0].history.length ? "" : "Hello!");
    const body = columns[0].body(pending, parameters() ?? {});
    code.textContent = samples[tab.dataset.language](location.origin + form.dataset.api, body);
  }

  /** The parameters of the form; null if the JSON is wrong. */
  function parameters() {
    const chosen = {};
    for (const field of document.querySelectorAll("[data-parameter]")) {
      if (field.value !== "") chosen[field.dataset.parameter] = field.type === "number" ? Number(field.value) : field.value;
    }
    const more = find("#more"), error = find("#more-error");
    let extra = {};
    try { extra = more.value.trim() ? JSON.parse(more.value) : {}; } catch { extra = null; }
    const wrong = extra === null || typeof extra !== "object" || Array.isArray(extra);
    error.hidden = !wrong;
    more.setAttribute("aria-invalid", wrong);
    if (wrong) { more.focus(); return null; }
    return { ...chosen, ...extra };
  }

  function showPictures() {
    thumbnails.hidden = !pictures.length;
    thumbnails.replaceChildren(...pictures.map((url, index) => {
      const remove = element("button", { type: "button", className: "quiet", textContent: "Remove" });
      remove.addEventListener("click", () => { pictures.splice(index, 1); showPictures(); });
      return element("figure", {}, element("img", { src: url, alt: `Image ${index + 1}` }), remove);
    }));
  }
}

/** One model's conversation. */
function column(root) {
  const log = find(".messages", root), model = find(".model", root), hint = log.innerHTML;
  const facts = Object.fromEntries([...root.querySelectorAll("[data-fact]")].map((each) => [each.dataset.fact, each]));
  const history = [];

  const body = (content, extra) => {
    const system = find("#system").value.trim();
    const messages = [...(system ? [{ role: "system", content: system }] : []), ...history];
    if (content) messages.push({ role: "user", content });
    return { model: model.value.trim(), messages, ...extra };
  };

  function clear() {
    history.length = 0;
    log.innerHTML = hint;
    Object.values(facts).forEach((each) => { each.textContent = "–"; });
  }

  function bubble(kind) {
    find(".hint", log)?.remove();
    const made = element("div", { className: `message ${kind}` });
    log.append(made);
    return made;
  }

  async function ask(content, extra, signal) {
    const request = body(content, extra);
    const mine = bubble("user");
    if (typeof content === "string") mine.textContent = content;
    else for (const part of content) mine.append(part.text ?? element("img", { src: part.image_url.url, alt: "An image that you sent" }));
    history.push({ role: "user", content });
    const answer = bubble("assistant");
    answer.classList.add("waiting");
    answer.setAttribute("aria-busy", "true");
    const text = document.createTextNode("");
    let thoughts = null, first = 0, usage = null, finish = "";
    const began = performance.now();
    const follow = () => { if (log.scrollHeight - log.scrollTop - log.clientHeight < 120) log.scrollTop = log.scrollHeight; };
    facts.first.textContent = facts.total.textContent = facts.speed.textContent = facts.tokens.textContent = facts.cost.textContent = "–";
    try {
      const payer = find("#payer")?.value;
      const response = await fetch(form.dataset.call + (payer ? `?key=${payer}` : ""), {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRF-Token": token() },
        body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true }, usage: { include: true } }),
        signal,
      });
      const call = response.headers.get("X-Generation-Id");
      const refused = response.headers.has("X-Limit-Name"); // such a call has no record
      if (call && !refused) answer.dataset.call = call;
      if (!response.ok) throw new Error((await response.json()).error.message);
      for await (const data of events(response)) {
        if (data === "[DONE]") break;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message);
        usage = chunk.usage ?? usage;
        const choice = chunk.choices?.[0], delta = choice?.delta ?? {};
        finish = choice?.finish_reason ?? finish;
        const thought = delta.reasoning_content ?? delta.reasoning;
        const piece = (delta.content ?? "") + (delta.tool_calls ?? []).map(tool).join("");
        if ((thought || piece) && !first) {
          first = performance.now();
          facts.first.textContent = duration(first - began);
          answer.classList.remove("waiting");
          answer.append(text);
        }
        if (thought) {
          if (!thoughts) {
            thoughts = element("p");
            answer.prepend(element("details", { className: "thoughts" }, element("summary", { textContent: "Reasoning" }), thoughts));
          }
          thoughts.append(thought);
        }
        if (piece) text.appendData(piece);
        follow();
      }
      if (finish && finish !== "stop") answer.append(element("p", { className: "soft small", textContent: `Ended by: ${finish}` }));
    } catch (error) {
      const stopped = error.name === "AbortError";
      answer.append(element("p", { className: stopped ? "soft small" : "failure", textContent: stopped ? "Stopped." : error.message }));
      if (!stopped) answer.setAttribute("role", "alert");
    }
    const ended = performance.now();
    answer.classList.remove("waiting");
    answer.removeAttribute("aria-busy");
    if (text.length) history.push({ role: "assistant", content: text.data }); else history.pop();
    facts.total.textContent = duration(ended - began);
    if (usage) {
      facts.tokens.textContent = `${usage.prompt_tokens} + ${usage.completion_tokens}`;
      facts.cost.textContent = money(usage.cost);
      const seconds = (ended - first) / 1000;
      if (first && seconds > 0.05) facts.speed.textContent = `${(usage.completion_tokens / seconds).toFixed(1)} tok/s`;
    }
    if (answer.dataset.call && form.dataset.calls) {
      answer.append(element("a", { className: "record", href: `${form.dataset.calls}/${answer.dataset.call}`, textContent: "See this call" }));
    }
    follow();
  }

  return { root, history, body, ask, clear };
}

const tool = (call) => (call.function?.name ? `\n${call.function.name} ` : "") + (call.function?.arguments ?? "");

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
