// Runs a client's cells: `node cells.mjs MODULE`; see ../python/cells.py, which this mirrors.
import { writeFileSync } from 'node:fs';

const env = process.env;
export const { ORIGIN, BASE_URL, API, API_KEY: KEY } = env;
export const ANSWER = 'Paris is the capital of France.';
export const QUESTION = 'What is the capital of France?';
export const ENDLESS = 'Count without an end.';
export const WEATHER = 'What is the weather? [[get_weather {"city": "Paris"}]]';
const ESTIMATE = 8; // of the question's tokens, where the provider counts none
export const CITY = { name: 'Paris', degrees: 0.5, capital: true };
export const PNG =
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==';
export const DATA_URL = `data:image/png;base64,${PNG}`;
const SECONDS = 1000;
const [CELL, QUICK, LEAVE] = [60 * SECONDS, 10 * SECONDS, 8 * SECONDS];

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const EXPECTED = {
  whole: (value) => value === ANSWER,
  streamed: (value) => value.length > 2 && value.join('') === ANSWER,
  usage: (value) => value === 42,
  count_tokens: (value) => value === 42 || value === ESTIMATE,
  tools: (value) => value === 'It says: Sunny in Paris',
  streamed_tools: (value) => value === 'It says: Sunny in Paris',
  structured: (value) => same(value, CITY),
  json_mode: (value) => same(value, CITY),
  image: (value) => value === 'I see 1 image.',
};

function assert(condition, message) {
  if (!condition) throw new Error(message);
}

async function refusal(call, status) {
  const started = Date.now();
  let value;
  try {
    value = await call();
  } catch (error) {
    const inner = error.lastError ?? error.cause ?? error;
    const found = error.status ?? error.statusCode ?? inner.status ?? inner.statusCode;
    if (found !== status) throw error;
    const waited = Date.now() - started;
    assert(waited < QUICK, `the error came after ${waited / SECONDS} s`);
    return;
  }
  throw new Error(`no error, but ${JSON.stringify(value)}`);
}

async function left(module, model) {
  await module.cancel(model);
  const end = Date.now() + LEAVE;
  while (Date.now() < end) {
    const calls = await (await fetch(env.PROVIDER)).json();
    if (calls.length && calls.every((call) => call.closed_early)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("the provider's stream goes on after the client has left");
}

async function run(module, cell, model) {
  if (cell === 'wrong_key') return refusal(() => module.whole(model, 'sk-wrong'), 401);
  if (cell === 'unknown_model') return refusal(() => module.whole(env.NO_MODEL), 404);
  if (cell === 'cancel') return left(module, model);
  const value = await module[cell](model);
  assert(EXPECTED[cell](value), `got ${JSON.stringify(value)}`);
}

function timer(reject) {
  return setTimeout(() => reject(new Error('no end after 60 s')), CELL);
}

async function main() {
  const module = await import(`./${process.argv[2]}.mjs`);
  const lines = [];
  for (const model of env.MODELS.split(','))
    for (const cell of env.CELLS.split(',')) {
      const result = { cell, model, result: 'ok', detail: '' };
      const implemented = ['wrong_key', 'unknown_model'].includes(cell) ? 'whole' : cell;
      if (module.NOT[cell]) Object.assign(result, { result: 'none', detail: module.NOT[cell] });
      else if (cell === 'count_tokens' && !module[cell])
        Object.assign(result, { result: 'none', detail: 'the client has no such call here' });
      else if (!module[implemented])
        Object.assign(result, { result: 'failed', detail: 'the test lacks this cell' });
      else {
        await fetch(`${ORIGIN}/label`, { method: 'POST', body: `${env.ROW}/${model}/${cell}` });
        const started = Date.now();
        let clock;
        try {
          const late = new Promise((_, reject) => (clock = timer(reject)));
          await Promise.race([run(module, cell, model), late]);
        } catch (error) {
          const detail = `${error?.name}: ${error?.message}`.slice(0, 600);
          Object.assign(result, { result: 'failed', detail });
        }
        clearTimeout(clock);
        result.seconds = (Date.now() - started) / SECONDS;
      }
      lines.push(JSON.stringify(result));
      writeFileSync(env.RESULTS, lines.join('\n'));
    }
  process.exit(0);
}

process.on('unhandledRejection', () => {}); // a client's own; the cell tells what came of it
main(); // not awaited: the module that it imports imports this one
