// Anthropic's client for Node: its tool cells use its beta tool runner.
import Anthropic from '@anthropic-ai/sdk';
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
import { z } from 'zod';
import { ENDLESS, KEY, ORIGIN, PNG, QUESTION, WEATHER } from './cells.mjs';

export const NOT = { json_mode: 'Messages has no JSON mode' };
const City = z.object({ name: z.string(), degrees: z.number(), capital: z.boolean() });
const client = (key = KEY) => new Anthropic({ baseURL: `${ORIGIN}/inference`, apiKey: key });
const fields = (model, content) => ({
  model,
  max_tokens: 1000,
  messages: [{ role: 'user', content }],
});
const getWeather = betaZodTool({
  name: 'get_weather',
  description: 'The weather of a city',
  inputSchema: z.object({ city: z.string() }),
  run: ({ city }) => `Sunny in ${city}`,
});

export async function whole(model, key) {
  return (await client(key).messages.create(fields(model, QUESTION))).content[0].text;
}

export async function streamed(model) {
  const texts = [];
  const stream = client().messages.stream(fields(model, QUESTION));
  stream.on('text', (text) => texts.push(text));
  await stream.done();
  return texts;
}

export async function usage(model) {
  const stream = client().messages.stream(fields(model, QUESTION));
  return (await stream.finalMessage()).usage.input_tokens;
}

export async function tools(model, stream = false) {
  const request = { ...fields(model, WEATHER), tools: [getWeather], stream };
  const message = await client().beta.messages.toolRunner(request).runUntilDone();
  return message.content[0].text;
}

export const streamed_tools = (model) => tools(model, true);

export async function structured(model) {
  const output_config = { format: zodOutputFormat(City) };
  return (await client().messages.parse({ ...fields(model, QUESTION), output_config })).parsed_output;
}

export async function image(model) {
  const source = { type: 'base64', media_type: 'image/png', data: PNG };
  const content = [{ type: 'image', source }, { type: 'text', text: 'See' }];
  return (await client().messages.create(fields(model, content))).content[0].text;
}

export async function count_tokens(model) {
  const { max_tokens, ...request } = fields(model, QUESTION);
  return (await client().messages.countTokens(request)).input_tokens;
}

export async function cancel(model) {
  const stream = await client().messages.create({ ...fields(model, ENDLESS), stream: true });
  for await (const event of stream) if (event.type === 'content_block_delta') break;
}
