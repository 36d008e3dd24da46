// The playground's call as code to copy, in three languages.

const shortened = (body) => JSON.parse(JSON.stringify(body, (key, value) =>
  (key === "url" && typeof value === "string" && value.length > 200 ? `${value.slice(0, 40)}...` : value)));

// What OpenAI's client takes by name; all else goes into the body.
const NAMED = new Set(("audio frequency_penalty logit_bias logprobs max_completion_tokens max_tokens metadata modalities "
  + "n parallel_tool_calls prediction presence_penalty reasoning_effort response_format seed service_tier stop store "
  + "temperature tool_choice tools top_logprobs top_p user verbosity web_search_options").split(" "));

const indented = (value) => JSON.stringify(value, null, 2);

// JSON's true, false and null are not Python's.
function python(value, indent = "") {
  const deeper = `${indent}    `;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) {
    return value.length ? `[\n${value.map((each) => `${deeper}${python(each, deeper)},\n`).join("")}${indent}]` : "[]";
  }
  if (typeof value === "object") {
    const pairs = Object.entries(value).map(([name, each]) => `${JSON.stringify(name)}: ${python(each, deeper)}`);
    return `{${pairs.join(", ")}}`;
  }
  return JSON.stringify(value);
}

export const samples = {
  curl(base, body) {
    const data = indented({ ...shortened(body), stream: true }).replaceAll("'", "'\\''");
    return `curl -N ${base}/chat/completions \\
  -H "Authorization: Bearer $INFERENCE_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '${data}'`;
  },

  python(base, body) {
    const { model, messages, ...extra } = shortened(body);
    const entries = Object.entries(extra), named = entries.filter(([name]) => NAMED.has(name));
    const others = Object.fromEntries(entries.filter(([name]) => !NAMED.has(name)));
    if (Object.keys(others).length) named.push(["extra_body", others]);
    const lines = named.map(([name, value]) => `    ${name}=${python(value, "    ")},\n`);
    return `import os

from openai import OpenAI

client = OpenAI(
    base_url="${base}",
    api_key=os.environ["INFERENCE_API_KEY"],
)
stream = client.chat.completions.create(
    model=${python(model)},
    messages=${python(messages, "    ")},
${lines.join("")}    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)`;
  },

  javascript(base, body) {
    const { model, messages, ...extra } = shortened(body);
    const request = indented({ model, messages, ...extra, stream: true }).replace(/^(\s*)"(\w+)":/gm, "$1$2:");
    return `import OpenAI from "openai";

const client = new OpenAI({
  baseURL: "${base}",
  apiKey: process.env.INFERENCE_API_KEY,
});
const stream = await client.chat.completions.create(${request});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}`;
  },
};
