// Vercel's AI SDK, by its provider for compatible services; prints what it got as JSON.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, Output, embedMany, generateText, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const service = createOpenAICompatible({
  name: 'service',
  baseURL: process.env.BASE_URL,
  apiKey: process.env.API_KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const prompt = 'What is the capital of France?';
const maxRetries = 0;

async function whole() {
  const answer = await generateText({ model: service('openai/gpt-4o-mini'), prompt, maxRetries });
  const { text, finishReason, usage } = answer;
  return { text, finishReason, tokens: usage.totalTokens };
}

async function stream() {
  const answer = streamText({ model: service('openai/gpt-4o-mini'), prompt, maxRetries });
  let text = '';
  for await (const piece of answer.textStream) text += piece;
  const usage = await answer.usage;
  return { text, finishReason: await answer.finishReason, tokens: usage.totalTokens };
}

const asked = [];
const tools = {
  get_weather: tool({
    description: 'The weather in a city',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      asked.push(city);
      return `Sunny in ${city}`;
    },
  }),
};
const loop = { model: service('fake/tool'), prompt, tools, maxRetries, stopWhen: stepCountIs(3) };

async function wholeTools() {
  const { text, steps } = await generateText(loop);
  return { text, steps: steps.length, asked: asked.splice(0) };
}

async function streamedTools() {
  const answer = streamText(loop);
  const text = await answer.text;
  return { text, steps: (await answer.steps).length, asked: asked.splice(0) };
}

async function structured() {
  const schema = z.object({ name: z.string(), degrees: z.number(), capital: z.boolean() });
  const output = Output.object({ schema });
  const model = service('fake/schema');
  return (await generateText({ model, prompt, output, maxRetries })).output;
}

async function embeddings() {
  const model = service.embeddingModel('fake/echo');
  return (await embedMany({ model, values: ['hi', 'you'], maxRetries })).embeddings;
}

async function refused() {
  try {
    await generateText({ model: service('openai/gpt-4o-mini'), prompt, temperature: 200, maxRetries });
  } catch (error) {
    const { name, message, statusCode, isRetryable, data } = error;
    const known = APICallError.isInstance(error);
    return { name, known, message, statusCode, isRetryable, error: data.error };
  }
}

async function broken() {
  const model = service('fake/stream-6-10-cut');
  const answer = streamText({ model, prompt, maxRetries, onError: () => {} });
  const parts = [];
  for await (const part of answer.fullStream) parts.push(part);
  const failures = parts.filter((part) => part.type === 'error');
  return { failures: failures.map((part) => part.error.message ?? part.error) };
}

const scenarios = {
  whole, stream, wholeTools, streamedTools, structured, embeddings, refused, broken,
};
const results = {};
for (const [name, run] of Object.entries(scenarios)) results[name] = await run();
console.log(JSON.stringify(results));
