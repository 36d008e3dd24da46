// OpenAI's client for Node, with its own loop of tools.
import OpenAI from 'openai';
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';
import { API, BASE_URL, CITY, DATA_URL, ENDLESS, KEY, QUESTION, WEATHER } from './cells.mjs';

const City = z.object({ name: z.string(), degrees: z.number(), capital: z.boolean() });
const parameters = {
  type: 'object',
  properties: { city: { type: 'string' } },
  required: ['city'],
  additionalProperties: false,
};
const client = (key = KEY) => new OpenAI({ baseURL: BASE_URL, apiKey: key });
const user = (content) => [{ role: 'user', content }];
const asJson = `Answer in JSON like ${JSON.stringify(CITY)}`;

const chat = {
  async whole(model, key) {
    const messages = user(QUESTION);
    const answer = await client(key).chat.completions.create({ model, messages });
    return answer.choices[0].message.content;
  },
  async streamed(model) {
    const request = { model, messages: user(QUESTION), stream: true };
    const texts = [];
    for await (const chunk of await client().chat.completions.create(request))
      if (chunk.choices[0]?.delta.content) texts.push(chunk.choices[0].delta.content);
    return texts;
  },
  async usage(model) {
    const stream_options = { include_usage: true };
    const request = { model, messages: user(QUESTION), stream: true, stream_options };
    let last;
    for await (const chunk of await client().chat.completions.create(request)) last = chunk;
    return last.usage.prompt_tokens;
  },
  async tools(model, stream = false) {
    const run = async ({ city }) => `Sunny in ${city}`;
    const definition = { name: 'get_weather', parameters, function: run, parse: JSON.parse };
    const tools = [{ type: 'function', function: definition }];
    const request = { model, messages: user(WEATHER), tools, stream };
    return client().chat.completions.runTools(request).finalContent();
  },
  streamed_tools: (model) => chat.tools(model, true),
  async structured(model) {
    const response_format = zodResponseFormat(City, 'city');
    const request = { model, messages: user(QUESTION), response_format };
    return (await client().chat.completions.parse(request)).choices[0].message.parsed;
  },
  async json_mode(model) {
    const response_format = { type: 'json_object' };
    const request = { model, messages: user(asJson), response_format };
    return JSON.parse((await client().chat.completions.create(request)).choices[0].message.content);
  },
  async image(model) {
    const part = { type: 'image_url', image_url: { url: DATA_URL } };
    const messages = user([{ type: 'text', text: 'See' }, part]);
    return (await client().chat.completions.create({ model, messages })).choices[0].message.content;
  },
  async cancel(model) {
    const request = { model, messages: user(ENDLESS), stream: true };
    for await (const chunk of await client().chat.completions.create(request))
      if (chunk.choices[0]?.delta.content) break;
  },
};

const responses = {
  async whole(model, key) {
    return (await client(key).responses.create({ model, input: QUESTION })).output_text;
  },
  async streamed(model) {
    const texts = [];
    for await (const event of await client().responses.create({ model, input: QUESTION, stream: true }))
      if (event.type === 'response.output_text.delta') texts.push(event.delta);
    return texts;
  },
  async usage(model) {
    const stream = client().responses.stream({ model, input: QUESTION });
    return (await stream.finalResponse()).usage.input_tokens;
  },
  async tools(model, ask = (request) => client().responses.create(request)) {
    const tools = [{ type: 'function', name: 'get_weather', strict: true, parameters }];
    const first = await ask({ model, input: WEATHER, tools });
    const call = first.output.find((item) => item.type === 'function_call');
    const output = `Sunny in ${JSON.parse(call.arguments).city}`;
    const result = { type: 'function_call_output', call_id: call.call_id, output };
    const input = [...user(WEATHER), ...first.output, result];
    const last = await ask({ model, input, tools });
    return last.output_text;
  },
  streamed_tools: (model) =>
    responses.tools(model, (request) => client().responses.stream(request).finalResponse()),
  async structured(model) {
    const text = { format: zodTextFormat(City, 'city') };
    return (await client().responses.parse({ model, input: QUESTION, text })).output_parsed;
  },
  async json_mode(model) {
    const text = { format: { type: 'json_object' } };
    return JSON.parse((await client().responses.create({ model, input: asJson, text })).output_text);
  },
  async image(model) {
    const part = { type: 'input_image', detail: 'auto', image_url: DATA_URL };
    const input = user([{ type: 'input_text', text: 'See' }, part]);
    return (await client().responses.create({ model, input })).output_text;
  },
  async count_tokens(model) {
    return (await client().responses.inputTokens.count({ model, input: QUESTION })).input_tokens;
  },
  async cancel(model) {
    for await (const event of await client().responses.create({ model, input: ENDLESS, stream: true }))
      if (event.type === 'response.output_text.delta') break;
  },
};

const api = API === 'chat' ? chat : responses;
export const NOT = {};
export const { whole, streamed, usage, tools, streamed_tools, structured, json_mode, image } = api;
export const { cancel, count_tokens } = api;
