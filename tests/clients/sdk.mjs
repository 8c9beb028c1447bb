// The SDKs that programs use, against flashchat serve with the bundled model and some answers given beforehand.
//   node sdk.mjs URL
import OpenAI from 'openai';
import Anthropic from '@anthropic-ai/sdk';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, streamText, tool, jsonSchema, stepCountIs } from 'ai';
import assert from 'node:assert/strict';

const url = process.argv[2], openai = new OpenAI({ baseURL: url + '/v1', apiKey: 'none', maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey: 'none', maxRetries: 0 });
const ai = createOpenAICompatible({ name: 'flashchat', baseURL: url + '/v1' })('ember');
let failed = 0;
const test = async (name, body) => {
  try { await body(); console.log('PASS ' + name); } catch (e) { failed = 1; console.log(`FAIL ${name}\n${e.stack}`); }
};
const model = 'ember', capital = [{ role: 'user', content: 'What is the capital of France?' }];
const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const tools = [{ type: 'function', function: { name: 'get_weather', description: 'weather of a city', parameters } }];

await test('openai: models', async () => assert.equal((await openai.models.list()).data[0].id, model));
await test('openai: chat', async () => {
  const r = await openai.chat.completions.create({ model, messages: capital });
  assert.match(r.choices[0].message.content, /Paris/); assert.equal(r.choices[0].finish_reason, 'stop'); assert.ok(r.usage.total_tokens > 0);
});
await test('openai: chat stream says the same', async () => {
  let text = '', usage;
  for await (const c of await openai.chat.completions.create({ model, messages: capital, stream: true, stream_options: { include_usage: true } })) {
    text += c.choices[0]?.delta?.content ?? ''; usage = c.usage ?? usage;
  }
  assert.match(text, /Paris/); assert.ok(usage.completion_tokens > 0);
});
await test('openai: tools loop', async () => {
  const messages = [{ role: 'user', content: 'scripted weather in Oslo' }];
  const r = await openai.chat.completions.create({ model, messages, tools });
  assert.equal(r.choices[0].finish_reason, 'tool_calls');
  const call = r.choices[0].message.tool_calls[0];
  assert.deepEqual(JSON.parse(call.function.arguments), { city: 'Oslo' });
  messages.push(r.choices[0].message, { role: 'tool', tool_call_id: call.id, content: 'Rain, 4 degrees.' });
  const s = await openai.chat.completions.create({ model, messages, tools });
  assert.ok(s.usage.prompt_tokens_details.cached_tokens > r.usage.prompt_tokens / 2, 'the second turn reuses the prefix');
});
await test('openai: structured output', async () => {
  const schema = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false };
  const r = await openai.chat.completions.create({ model, messages: capital, response_format: { type: 'json_schema', json_schema: { name: 'city', schema, strict: true } } });
  assert.equal(typeof JSON.parse(r.choices[0].message.content).city, 'string');
});
await test('openai: forced tool', async () => {
  const r = await openai.chat.completions.create({ model, messages: capital, tools, tool_choice: { type: 'function', function: { name: 'get_weather' } }, max_tokens: 300 });
  assert.equal(r.choices[0].message.tool_calls[0].function.name, 'get_weather');
});
await test('openai: n, logprobs, stop, seed', async () => {
  const ask = () => openai.chat.completions.create({ model, messages: capital, n: 2, logprobs: true, top_logprobs: 3, temperature: 1, seed: 5, max_tokens: 30, reasoning_effort: 'none' });
  const [a, b] = [await ask(), await ask()];
  assert.equal(a.choices.length, 2);
  assert.deepEqual(a.choices.map((c) => c.message.content), b.choices.map((c) => c.message.content));
  for (const t of a.choices[0].logprobs.content) assert.ok(t.logprob <= 0 && t.top_logprobs.length === 3);
  const s = await openai.chat.completions.create({ model, messages: capital, stop: ['France'], reasoning_effort: 'none' });
  assert.ok(!s.choices[0].message.content.includes('France'));
});
await test('openai: completions', async () => {
  const r = await openai.completions.create({ model, prompt: 'The capital of', max_tokens: 5 });
  assert.equal(r.usage.completion_tokens <= 5, true);
});
await test('openai: errors have their types', async () => {
  await assert.rejects(openai.chat.completions.create({ model: 'other', messages: capital }), OpenAI.NotFoundError);
  await assert.rejects(openai.chat.completions.create({ model, messages: capital, temperature: 9 }), OpenAI.BadRequestError);
});
await test('openai: responses', async () => {
  const r = await openai.responses.create({ model, input: 'What is the capital of France?' });
  assert.equal(r.status, 'completed'); assert.match(r.output_text, /Paris/);
});
await test('openai: responses stream', async () => {
  const seen = []; let text = '';
  for await (const e of await openai.responses.create({ model, input: 'What is the capital of France?', stream: true })) {
    assert.equal(e.sequence_number, seen.length); seen.push(e.type); if (e.type === 'response.output_text.delta') text += e.delta;
  }
  assert.match(text, /Paris/); assert.equal(seen[0], 'response.created'); assert.equal(seen.at(-1), 'response.completed');
});
await test('openai: responses tools loop', async () => {
  const t = [{ type: 'function', name: 'get_weather', parameters, strict: false }], input = [{ role: 'user', content: 'scripted weather in Oslo' }];
  const r = await openai.responses.create({ model, input, tools: t });
  const call = r.output.find((i) => i.type === 'function_call'); assert.deepEqual(JSON.parse(call.arguments), { city: 'Oslo' });
  const s = await openai.responses.create({ model, tools: t, input: [...input, ...r.output, { type: 'function_call_output', call_id: call.call_id, output: 'Rain' }] });
  assert.ok(['completed', 'incomplete'].includes(s.status)); assert.ok(s.usage.input_tokens_details.cached_tokens > 0);
});
await test('anthropic: message', async () => {
  const r = await anthropic.messages.create({ model, max_tokens: 100, messages: capital });
  assert.match(r.content[0].text, /Paris/); assert.equal(r.stop_reason, 'end_turn');
});
await test('anthropic: stream with thinking', async () => {
  const s = anthropic.messages.stream({ model, max_tokens: 1500, thinking: { type: 'enabled', budget_tokens: 1024 }, messages: capital });
  const m = await s.finalMessage();
  assert.deepEqual(m.content.map((b) => b.type), ['thinking', 'text']); assert.match(m.content[1].text, /Paris/);
});
await test('anthropic: tools loop', async () => {
  const t = [{ name: 'get_weather', input_schema: parameters }], messages = [{ role: 'user', content: 'scripted weather in Oslo' }];
  const m = await anthropic.messages.stream({ model, max_tokens: 300, tools: t, messages }).finalMessage();
  assert.equal(m.stop_reason, 'tool_use'); const use = m.content.find((b) => b.type === 'tool_use'); assert.deepEqual(use.input, { city: 'Oslo' });
  const n = await anthropic.messages.create({ model, max_tokens: 100, tools: t, messages: [...messages, { role: 'assistant', content: m.content }, { role: 'user', content: [{ type: 'tool_result', tool_use_id: use.id, content: 'Rain' }] }] });
  assert.ok(n.usage.cache_read_input_tokens > 0);
});
await test('anthropic: count_tokens, stop_sequences, errors', async () => {
  assert.ok((await anthropic.messages.countTokens({ model, messages: capital })).input_tokens > 5);
  const r = await anthropic.messages.create({ model, max_tokens: 100, messages: capital, stop_sequences: ['France'] });
  assert.equal(r.stop_reason, 'stop_sequence'); assert.equal(r.stop_sequence, 'France');
  await assert.rejects(anthropic.messages.create({ model, max_tokens: 5, messages: [] }), Anthropic.BadRequestError);
});
await test('ai sdk: text, stream, tools', async () => {
  assert.match((await generateText({ model: ai, prompt: 'What is the capital of France?' })).text, /Paris/);
  let text = ''; for await (const t of streamText({ model: ai, prompt: 'What is the capital of France?' }).textStream) text += t;
  assert.match(text, /Paris/);
  let asked; const get_weather = tool({ inputSchema: jsonSchema(parameters), execute: async (a) => { asked = a; return 'Rain'; } });
  await generateText({ model: ai, prompt: 'scripted weather in Oslo', tools: { get_weather }, stopWhen: stepCountIs(2), maxOutputTokens: 200 });
  assert.deepEqual(asked, { city: 'Oslo' });
});
await test('openai: embeddings are a 404 that says why', async () => {
  await assert.rejects(openai.embeddings.create({ model, input: 'a' }), (e) => e instanceof OpenAI.NotFoundError && /embeddings/.test(e.message));
});
await test('openai: a streamed call has its index and its arguments in pieces', async () => {
  const calls = []; let why;
  for await (const c of await openai.chat.completions.create({ model, messages: [{ role: 'user', content: 'scripted weather in Oslo' }], tools, stream: true })) {
    why = c.choices[0]?.finish_reason ?? why;
    for (const t of c.choices[0]?.delta?.tool_calls ?? []) {
      calls[t.index] ??= { name: '', text: '' };
      calls[t.index].name += t.function.name ?? ''; calls[t.index].text += t.function.arguments ?? '';
    }
  }
  assert.equal(why, 'tool_calls'); assert.equal(calls.length, 1); assert.equal(calls[0].name, 'get_weather');
  assert.deepEqual(JSON.parse(calls[0].text), { city: 'Oslo' });
});
await test('openai: responses with a schema', async () => {
  const schema = { type: 'object', properties: { city: { type: 'string', maxLength: 20 } }, required: ['city'], additionalProperties: false };
  const r = await openai.responses.create({ model, input: 'What is the capital of France?', text: { format: { type: 'json_schema', name: 'city', schema, strict: true } } });
  assert.equal(typeof JSON.parse(r.output_text).city, 'string');
});
await test('anthropic: count_tokens with tools and a system prompt is what a message then has', async () => {
  const ask = { model, system: 'You know capitals.', tools: [{ name: 'get_weather', input_schema: parameters }], messages: capital };
  const counted = (await anthropic.messages.countTokens(ask)).input_tokens;
  const { usage } = await anthropic.messages.create({ ...ask, max_tokens: 5 });
  assert.equal(usage.input_tokens + usage.cache_read_input_tokens, counted);
});
// All SDKs at once, every third stream left in its middle: the others get whole answers, nothing keeps running.
await test('all at once, with clients that leave', async () => {
  const metric = async (name) => +(await (await fetch(url + '/metrics')).text()).match(new RegExp(`^flashchat:${name} (.*)$`, 'm'))[1];
  const gone = await metric('clients_gone_total');
  const leave = async () => {
    const s = await openai.chat.completions.create({ model, messages: [{ role: 'user', content: 'Tell me a long story.' }], temperature: 1, stream: true });
    for await (const c of s) if (c.choices[0]?.delta?.content || c.choices[0]?.delta?.reasoning_content) break; // the SDK closes the connection
  };
  const jobs = [
    async () => assert.match((await openai.chat.completions.create({ model, messages: capital })).choices[0].message.content, /Paris/),
    leave,
    async () => assert.match((await anthropic.messages.create({ model, max_tokens: 100, messages: capital })).content[0].text, /Paris/),
    async () => assert.match((await openai.responses.create({ model, input: 'What is the capital of France?' })).output_text, /Paris/),
    leave,
    async () => assert.match((await generateText({ model: ai, prompt: 'What is the capital of France?' })).text, /Paris/),
  ];
  await Promise.all(Array.from({ length: 30 }, (_, i) => jobs[i % jobs.length]()));
  assert.equal((await fetch(url + '/health')).status, 200);
  for (let i = 0; i < 600 && await metric('requests_processing') + await metric('requests_deferred') > 0; i++) await new Promise((r) => setTimeout(r, 100));
  assert.equal(await metric('requests_processing'), 0);
  console.log(`  ${await metric('clients_gone_total') - gone} of 10 left before their answer was complete`);
});
process.exit(failed);
