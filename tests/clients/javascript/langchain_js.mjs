// LangChain's classes for OpenAI (both APIs) and Anthropic.
import { ChatAnthropic } from '@langchain/anthropic';
import { HumanMessage } from '@langchain/core/messages';
import { tool } from '@langchain/core/tools';
import { ChatOpenAI } from '@langchain/openai';
import { z } from 'zod';
import { API, BASE_URL, CITY, DATA_URL, ENDLESS, KEY, ORIGIN, QUESTION, WEATHER } from './cells.mjs';

export const NOT = API === 'messages' ? { json_mode: 'Messages has no JSON mode' } : {};
const City = z.object({ name: z.string(), degrees: z.number(), capital: z.boolean() });
const getWeather = tool(({ city }) => `Sunny in ${city}`, {
  name: 'get_weather',
  description: 'The weather of a city',
  schema: z.object({ city: z.string() }),
});

function chat(model, apiKey = KEY) {
  if (API === 'messages')
    return new ChatAnthropic({ model, apiKey, anthropicApiUrl: `${ORIGIN}/inference` });
  const configuration = { baseURL: BASE_URL };
  return new ChatOpenAI({ model, apiKey, configuration, useResponsesApi: API === 'responses' });
}

export async function whole(model, key) {
  return (await chat(model, key).invoke(QUESTION)).text;
}

export async function streamed(model) {
  const texts = [];
  for await (const part of await chat(model).stream(QUESTION)) if (part.text) texts.push(part.text);
  return texts;
}

export async function usage(model) {
  let sum;
  for await (const part of await chat(model).stream(QUESTION)) sum = sum ? sum.concat(part) : part;
  return sum.usage_metadata.input_tokens;
}

async function loop(model, ask) {
  const bound = chat(model).bindTools([getWeather]);
  const messages = [new HumanMessage(WEATHER)];
  for (let turn = 0; turn < 3; turn++) {
    const message = await ask(bound, messages);
    if (!message.tool_calls?.length) return message.text;
    messages.push(message);
    for (const call of message.tool_calls) messages.push(await getWeather.invoke(call));
  }
  throw new Error('the loop has no end');
}

export const tools = (model) => loop(model, (bound, messages) => bound.invoke(messages));

export const streamed_tools = (model) =>
  loop(model, async (bound, messages) => {
    let sum;
    for await (const part of await bound.stream(messages)) sum = sum ? sum.concat(part) : part;
    return sum;
  });

export async function structured(model) {
  return chat(model).withStructuredOutput(City, { method: 'jsonSchema' }).invoke(QUESTION);
}

export async function json_mode(model) {
  const form = chat(model).withStructuredOutput(City, { method: 'jsonMode' });
  return form.invoke(`Answer in JSON like ${JSON.stringify(CITY)}`);
}

export async function image(model) {
  const part = { type: 'image_url', image_url: { url: DATA_URL } };
  const message = new HumanMessage({ content: [{ type: 'text', text: 'See' }, part] });
  return (await chat(model).invoke([message])).text;
}

export async function cancel(model) {
  for await (const part of await chat(model).stream(ENDLESS)) if (part.text) break;
}
