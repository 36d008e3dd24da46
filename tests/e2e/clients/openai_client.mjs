// OpenAI's client does each thing once; prints what it got as JSON.
import OpenAI from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';

const client = new OpenAI({
  baseURL: process.env.BASE_URL,
  apiKey: process.env.API_KEY,
  maxRetries: 0,
});
const messages = [{ role: 'user', content: 'What is the capital of France?' }];
const weather = {
  type: 'function',
  function: {
    name: 'get_weather',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
};

async function whole() {
  const answer = await client.chat.completions.create({ model: 'openai/gpt-4o-mini', messages });
  const { message, finish_reason } = answer.choices[0];
  return { text: message.content, finish_reason, model: answer.model, usage: answer.usage };
}

async function stream() {
  const stream = await client.chat.completions.create({
    model: 'openai/gpt-4o-mini',
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
  const got = { text: '', finish_reason: null, usage: null };
  for await (const chunk of stream) {
    got.text += chunk.choices[0]?.delta.content ?? '';
    got.finish_reason = chunk.choices[0]?.finish_reason ?? got.finish_reason;
    got.usage = chunk.usage ?? got.usage;
  }
  return got;
}

// The client's own loop: it calls the function and sends its result, streaming both answers.
async function tools() {
  const asked = [];
  const runner = client.chat.completions.runTools({
    model: 'fake/tool',
    messages,
    stream: true,
    tools: [
      {
        type: 'function',
        function: {
          ...weather.function,
          parse: JSON.parse,
          function: ({ city }) => {
            asked.push(city);
            return `Sunny in ${city}`;
          },
        },
      },
    ],
  });
  return { text: await runner.finalContent(), asked };
}

async function toolCall() {
  const answer = await client.chat.completions.create({
    model: 'fake/tool',
    messages,
    tools: [weather],
  });
  return { ...answer.choices[0].message.tool_calls[0], reason: answer.choices[0].finish_reason };
}

async function structured() {
  const City = z.object({ name: z.string(), degrees: z.number(), capital: z.boolean() });
  const answer = await client.chat.completions.parse({
    model: 'fake/schema',
    messages,
    response_format: zodResponseFormat(City, 'city'),
  });
  return answer.choices[0].message.parsed;
}

async function embeddings() {
  const answer = await client.embeddings.create({ model: 'fake/echo', input: ['hi', 'you'] });
  return answer.data.map((item) => item.embedding);
}

async function failure(call) {
  try {
    await call();
  } catch (error) {
    const { status, code, param, type, message } = error;
    const kind = error.constructor.name;
    return { kind, status, code, param, type, message, named: Boolean(error.requestID) };
  }
}

const refused = () =>
  failure(() =>
    client.chat.completions.create({ model: 'openai/gpt-4o-mini', messages, temperature: 200 }),
  );
const broken = () =>
  failure(async () => {
    const model = 'fake/stream-6-10-cut';
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    for await (const chunk of stream);
  });

const scenarios = { whole, stream, tools, toolCall, structured, embeddings, refused, broken };
const results = {};
for (const [name, run] of Object.entries(scenarios)) results[name] = await run();
console.log(JSON.stringify(results));
