// Vercel's AI SDK by its providers for OpenAI, compatible services and Anthropic: see CLIENT.
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { Output, generateObject, generateText, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';
import { API, BASE_URL, CITY, ENDLESS, KEY, PNG, QUESTION, WEATHER } from './cells.mjs';

export const NOT = API === 'compatible' ? {} : { json_mode: 'it asks for a schema' };
const City = z.object({ name: z.string(), degrees: z.number(), capital: z.boolean() });
globalThis.AI_SDK_LOG_WARNINGS = false;

function service(model, apiKey = KEY, structured = true) {
  const place = { baseURL: BASE_URL, apiKey };
  if (API === 'messages') return createAnthropic(place)(model);
  if (API === 'chat') return createOpenAI(place).chat(model);
  if (API === 'responses') return createOpenAI(place).responses(model);
  const options = { name: 'service', includeUsage: true, supportsStructuredOutputs: structured };
  return createOpenAICompatible({ ...place, ...options })(model);
}

const tools_ = {
  get_weather: tool({
    description: 'The weather of a city',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `Sunny in ${city}`,
  }),
};
const loop = (model) => ({
  model: service(model),
  prompt: WEATHER,
  tools: tools_,
  stopWhen: stepCountIs(3),
});
const stream = (request) => {
  let failure;
  const result = streamText({ ...request, onError: ({ error }) => (failure = error) });
  return { result, check: () => { if (failure) throw failure; } };
};

export async function whole(model, key) {
  return (await generateText({ model: service(model, key), prompt: QUESTION })).text;
}

export async function streamed(model) {
  const { result, check } = stream({ model: service(model), prompt: QUESTION });
  const texts = [];
  for await (const text of result.textStream) texts.push(text);
  check();
  return texts;
}

export async function usage(model) {
  const { result, check } = stream({ model: service(model), prompt: QUESTION });
  await result.consumeStream();
  check();
  return (await result.usage).inputTokens;
}

export async function tools(model) {
  return (await generateText(loop(model))).text;
}

export async function streamed_tools(model) {
  const { result, check } = stream(loop(model));
  await result.consumeStream();
  check();
  return await result.text;
}

export async function structured(model) {
  const output = Output.object({ schema: City });
  return (await generateText({ model: service(model), prompt: QUESTION, output })).output;
}

export async function json_mode(model) {
  const prompt = `Answer in JSON like ${JSON.stringify(CITY)}`;
  return (await generateObject({ model: service(model, KEY, false), prompt, schema: City })).object;
}

export async function image(model) {
  const part = { type: 'image', image: PNG, mediaType: 'image/png' };
  const messages = [{ role: 'user', content: [{ type: 'text', text: 'See' }, part] }];
  return (await generateText({ model: service(model), messages })).text;
}

export async function cancel(model) {
  const leave = new AbortController();
  const { result } = stream({ model: service(model), prompt: ENDLESS, abortSignal: leave.signal });
  for await (const text of result.textStream) if (text) break;
  leave.abort();
}
