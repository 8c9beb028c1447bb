// Second turns against flashchat serve with the bundled model: every token of the first turn, the sampled ones included,
// must be found again, also when the client drops the thinking and spells arguments anew.   node prefix.mjs URL
const url = process.argv[2];
const report = (name, problem) => console.log(problem ? `FAIL ${name}\n  ${problem}` : `PASS ${name}`);
const test = async (name, body) => { try { report(name, await body()); } catch (e) { report(name, e.stack); } };
const post = async (path, body) => {
  const a = await fetch(url + path, { method: 'POST', body: JSON.stringify({ model: 'ember', temperature: 0, ...body }) });
  const text = await a.text();
  if (a.status !== 200) throw new Error(`${path}: ${a.status} ${text}`);
  return JSON.parse(text);
};
// The last token of an answer that was cut off, or that a forced end followed, has not been computed yet.
const reused = (cached, prompt, made) => (cached < prompt + made - 1) && `${cached} of ${prompt} + ${made} tokens were reused`;

for (const [name, extra] of [['plain', {}], ['thinking', { chat_template_kwargs: { enable_thinking: true } }]]) {
  await test(`chat, ${name}`, async () => {
    const messages = [{ role: 'system', content: `You answer in one sentence (${name}).` }, { role: 'user', content: 'What is the capital of France?' }];
    const one = await post('/v1/chat/completions', { messages, max_tokens: 400, ...extra });
    const said = one.choices[0].message;
    if (!said.content) return `no answer: ${JSON.stringify(one)}`;
    messages.push({ role: 'assistant', content: said.content + '\n' }, { role: 'user', content: 'And of Italy?' });
    const two = await post('/v1/chat/completions', { messages, max_tokens: 8, ...extra });
    return reused(two.usage.prompt_tokens_details.cached_tokens, one.usage.prompt_tokens, one.usage.completion_tokens);
  });
}
await test('responses', async () => {
  const input = [{ role: 'user', content: 'Name a colour (responses).' }];
  const one = await post('/v1/responses', { instructions: 'Be short.', input, max_output_tokens: 200 });
  input.push(...one.output.filter((o) => o.type === 'message'), { role: 'user', content: 'Another one.' });
  const two = await post('/v1/responses', { instructions: 'Be short.', input, max_output_tokens: 8 });
  return reused(two.usage.input_tokens_details.cached_tokens, one.usage.input_tokens, one.usage.output_tokens);
});
await test('messages: a billing line that changes is no other prompt', async () => {
  const system = (n) => [{ type: 'text', text: `x-anthropic-billing-header: cc_version=2.0.${n}; cch=${n}a7;` }, { type: 'text', text: 'You are brief.' }];
  const messages = [{ role: 'user', content: 'Name an animal (messages).' }];
  const one = await post('/v1/messages', { system: system(1), messages, max_tokens: 100 });
  messages.push({ role: 'assistant', content: one.content }, { role: 'user', content: 'Another one.' });
  const two = await post('/v1/messages', { system: system(2), messages, max_tokens: 8 });
  return reused(two.usage.cache_read_input_tokens, one.usage.input_tokens + one.usage.cache_read_input_tokens, one.usage.output_tokens);
});
const tools = [{ type: 'function', function: { name: 'get_weather', description: 'The weather of a city',
  parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } } }];
await test('a call and its result', async () => {
  const messages = [{ role: 'user', content: 'What is the weather in Oslo?' }];
  const one = await post('/v1/chat/completions', { messages, tools, tool_choice: 'required', max_tokens: 200 });
  const said = one.choices[0].message;
  if (!said.tool_calls) return `no call: ${JSON.stringify(one)}`;
  // As SDKs do: without the content, arguments parsed and written again, ids of their own.
  const calls = said.tool_calls.map((c, i) => ({ ...c, id: `mine_${i}`, function: { name: c.function.name, arguments: JSON.stringify(JSON.parse(c.function.arguments), null, 2) } }));
  messages.push({ role: 'assistant', content: said.content ?? '', tool_calls: calls }, ...calls.map((c) => ({ role: 'tool', tool_call_id: c.id, content: 'sunny' })));
  const two = await post('/v1/chat/completions', { messages, tools, max_tokens: 8 });
  return reused(two.usage.prompt_tokens_details.cached_tokens, one.usage.prompt_tokens, one.usage.completion_tokens);
});
await test('an answer that begins with given text', async () => {
  const messages = [{ role: 'user', content: 'Count to five (prefill).' }];
  const one = await post('/v1/messages', { messages: [...messages, { role: 'assistant', content: 'One, two,' }], max_tokens: 60 });
  messages.push({ role: 'assistant', content: 'One, two,' + one.content.map((b) => b.text).join('') }, { role: 'user', content: 'Thanks.' });
  const two = await post('/v1/messages', { messages, max_tokens: 8 });
  return reused(two.usage.cache_read_input_tokens, one.usage.input_tokens + one.usage.cache_read_input_tokens, one.usage.output_tokens);
});
