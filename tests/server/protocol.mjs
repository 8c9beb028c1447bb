// What the four APIs say, event by event, against build/fake-server (every answer is known; a token is one byte).
//   node protocol.mjs URL
const url = process.argv[2];
const test = async (name, body) => {
  let problem;
  try { problem = await body(); } catch (e) { problem = e.stack; }
  console.log(problem ? `FAIL ${name}\n  ${problem}` : `PASS ${name}`);
};
const same = (found, wanted, what = '') => {
  const [f, w] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (f !== w) throw new Error(`${what}\n  found  ${f}\n  wanted ${w}`);
};
const send = (path, body) => fetch(url + path, { method: 'POST', body: JSON.stringify(body) });
const post = async (path, body, status = 200) => {
  const a = await send(path, body), text = await a.text();
  if (a.status !== status) throw new Error(`${path}: ${a.status} ${text}`);
  return JSON.parse(text);
};
// Events as [name or null, data]; comments as ['', text].
const events = async (path, body) => {
  const a = await send(path, { ...body, stream: true });
  if (a.status !== 200 || a.headers.get('content-type') !== 'text/event-stream') throw new Error(`${a.status} ${await a.text()}`);
  return (await a.text()).split('\n\n').filter(Boolean).map((e) => {
    if (e.startsWith(':')) return ['', e];
    const name = /^event: (.*)$/m.exec(e), data = /^data: (.*)$/m.exec(e)[1];
    return [name && name[1], data === '[DONE]' ? data : JSON.parse(data)];
  });
};
const user = (content, more = {}) => ({ messages: [{ role: 'user', content }], ...more });
const tools = [{ type: 'function', function: { name: 'get', parameters: { type: 'object', properties: { city: { type: 'string' }, n: { type: 'integer' } } } } }];
const call = (city, n) => `<tool_call>\n<function=get>\n<parameter=city>\n${city}\n</parameter>\n<parameter=n>\n${n}\n</parameter>\n</function>\n</tool_call>`;
const rich = `say:<think>\nhm, well\n</think>\n\nLook: ${call('Oslo', 3)}\n${call('Bergen', 4)}`;
const squeeze = (names) => names.filter((n, i) => n !== names[i - 1]); // runs of one kind as one

await test('chat: the stream adds up to the answer', async () => {
  const whole = await post('/v1/chat/completions', user(rich, { tools })), m = whole.choices[0].message;
  same([m.role, m.content.trim(), m.reasoning_content.trim(), m.tool_calls.map((c) => [c.type, c.function.name, JSON.parse(c.function.arguments)])],
    ['assistant', 'Look:', 'hm, well', [['function', 'get', { city: 'Oslo', n: 3 }], ['function', 'get', { city: 'Bergen', n: 4 }]]]);
  same([whole.object, whole.choices[0].finish_reason], ['chat.completion', 'tool_calls']);
  const list = (await events('/v1/chat/completions', user(rich, { tools, stream_options: { include_usage: true } }))).map((e) => e[1]);
  same(list.at(-1), '[DONE]');
  const chunks = list.slice(0, -1), last = chunks.pop();
  same([last.choices, last.usage.completion_tokens, last.usage.prompt_tokens], [[], whole.usage.completion_tokens, whole.usage.prompt_tokens]);
  same(new Set(list.slice(0, -1).map((c) => c.id + c.object + c.created + c.model)).size, 1, 'one id');
  const sum = { content: '', reasoning_content: '', tool_calls: [] };
  for (const c of chunks) {
    const d = c.choices[0].delta;
    sum.content += d.content ?? ''; sum.reasoning_content += d.reasoning_content ?? '';
    for (const t of d.tool_calls ?? []) {
      const at = sum.tool_calls[t.index] ??= { name: '', arguments: '', ids: 0 };
      at.name += t.function.name ?? ''; at.arguments += t.function.arguments ?? ''; at.ids += t.id ? 1 : 0;
    }
  }
  same([sum.content, sum.reasoning_content, sum.tool_calls], [m.content, m.reasoning_content,
    m.tool_calls.map((c) => ({ name: c.function.name, arguments: c.function.arguments, ids: 1 }))]);
  same(chunks.map((c) => c.choices[0].finish_reason).filter(Boolean), ['tool_calls']);
  same(chunks[0].choices[0].delta, { role: 'assistant', content: '' });
});
await test('chat: n choices', async () => {
  const list = (await events('/v1/chat/completions', user('abc', { n: 3 }))).map((e) => e[1]).slice(0, -1), text = ['', '', ''];
  for (const c of list) text[c.choices[0].index] += c.choices[0].delta.content ?? '';
  same(text, Array(3).fill('You said: abc'));
  same((await post('/v1/chat/completions', user('abc', { n: 2 }))).choices.map((c) => [c.index, c.message.content]), [[0, 'You said: abc'], [1, 'You said: abc']]);
});
await test('stop strings across token borders', async () => {
  const a = await post('/v1/chat/completions', user('say:one two three', { stop: ['nothing', 'o th'] }));
  same([a.choices[0].message.content, a.choices[0].finish_reason], ['one tw', 'stop']);
  const b = (await events('/v1/chat/completions', user('say:one two three', { stop: 'wo t' }))).slice(0, -1);
  same(b.map((e) => e[1].choices[0].delta.content ?? '').join(''), 'one t');
  const c = await post('/v1/messages', user('say:one two three', { max_tokens: 99, stop_sequences: ['zzz', ' three'] }));
  same([c.content, c.stop_reason, c.stop_sequence], [[{ type: 'text', text: 'one two' }], 'stop_sequence', ' three']);
  const d = await post('/v1/chat/completions', user('say:a stop that never comes: sto', { stop: 'stopp' }));
  same([d.choices[0].message.content, d.choices[0].finish_reason], ['a stop that never comes: sto', 'stop']);
  const e = await post('/v1/completions', { prompt: '<|im_start|>user\nsay:x y z<|im_end|>\n<|im_start|>assistant\n', max_tokens: 50, stop: ['y'] });
  same([e.choices[0].text, e.choices[0].finish_reason], ['x ', 'stop']);
});
await test('logprobs', async () => {
  const a = (await post('/v1/chat/completions', user('say:h\u00e9y', { logprobs: true, top_logprobs: 3 }))).choices[0];
  same(a.logprobs.content.map((t) => t.bytes).flat(), [...Buffer.from('h\u00e9y')]);
  for (const t of a.logprobs.content) {
    if (!(t.logprob <= 0 && t.top_logprobs.length === 3 && t.top_logprobs[0].logprob === t.logprob)) return JSON.stringify(t);
    if (t.top_logprobs[1].logprob > t.top_logprobs[0].logprob) return 'not in order';
  }
  const b = (await post('/v1/completions', { prompt: '<|im_start|>user\nsay:abc<|im_end|>\n<|im_start|>assistant\n', logprobs: 1 })).choices[0];
  same([b.logprobs.tokens, b.logprobs.text_offset], [['a', 'b', 'c'], [0, 1, 2]]);
  const c = await post('/v1/responses', { input: 'say:ab', include: ['message.output_text.logprobs'], top_logprobs: 1 });
  same(c.output[0].content[0].logprobs.map((t) => t.token), ['a', 'b']);
});
await test('logit_bias', async () => {
  const a = await post('/v1/chat/completions', user('say:axb', { logit_bias: { [120]: -100 } }));
  if (a.choices[0].message.content.includes('x')) return a.choices[0].message.content;
});
await test('max_tokens: cut, and clamped to the room', async () => {
  const a = await post('/v1/chat/completions', user('long:50', { max_completion_tokens: 7 }));
  same([a.choices[0].message.content, a.choices[0].finish_reason, a.usage.completion_tokens], ['xxxxxxx', 'length', 7]);
  const b = await post('/v1/messages', user('long:3000', { max_tokens: 1e6 }));
  same([b.stop_reason, b.usage.input_tokens + b.usage.cache_read_input_tokens + b.usage.output_tokens], ['max_tokens', 1024]);
  const c = await post('/v1/responses', { input: 'long:3000' });
  same([c.status, c.incomplete_details], ['incomplete', { reason: 'max_output_tokens' }]);
});
await test('a prompt that does not fit: 400 with the numbers', async () => {
  for (const [path, body] of [['/v1/chat/completions', user('a'.repeat(3000))], ['/v1/messages', user('a'.repeat(3000), { max_tokens: 5 })],
    ['/v1/responses', { input: 'a'.repeat(3000) }], ['/v1/completions', { prompt: 'a'.repeat(3000) }]]) {
    const a = await post(path, body, 400);
    if (!/\b30\d\d tokens.*\b1024 tokens/.test(a.error.message)) return a.error.message;
    if (path !== '/v1/messages' && a.error.code !== 'context_length_exceeded') return JSON.stringify(a);
  }
});
await test('a thinking budget closes the thought cleanly', async () => {
  const thought = 'say:<think>\n' + 'a'.repeat(200); // it would never end by itself
  const a = await post('/v1/chat/completions', user(thought, { thinking_budget: 10 }));
  const m = a.choices[0].message, n = a.usage.completion_tokens_details.reasoning_tokens;
  if (!/^a{100,}$/.test(m.content) || !/^a{5,12}$/.test(m.reasoning_content)) return JSON.stringify(m);
  if (n < 10 || n > 30) return `${n} reasoning tokens`;
  const b = await post('/v1/messages', user(thought, { max_tokens: 500, thinking: { type: 'enabled', budget_tokens: 10 } }));
  same(b.content.map((c) => c.type), ['thinking', 'text']);
});
await test('responses: the order of events', async () => {
  const list = await events('/v1/responses', { input: rich, tools: tools.map((t) => ({ type: 'function', ...t.function })), parallel_tool_calls: true });
  same(list.every(([n, d]) => n === d.type), true, 'names');
  same(list.map((e) => e[1].sequence_number), list.map((_, i) => i), 'numbers');
  const text = (kind) => ['response.output_item.added', 'response.content_part.added', `response.${kind}.delta`, `response.${kind}.done`, 'response.content_part.done', 'response.output_item.done'];
  const made = ['response.output_item.added', 'response.function_call_arguments.delta', 'response.function_call_arguments.done', 'response.output_item.done'];
  same(squeeze(list.map((e) => e[0])), ['response.created', 'response.in_progress', ...text('reasoning_text'), ...text('output_text'), ...made, ...made, 'response.completed']);
  const end = list.at(-1)[1].response, items = list.filter((e) => e[0] === 'response.output_item.done').map((e) => e[1]);
  same(items.map((i) => i.output_index), [0, 1, 2, 3]);
  same(items.map((i) => i.item), end.output, 'the items are the output');
  for (const [kind, done] of [['output_text', 'text'], ['reasoning_text', 'text']]) {
    const deltas = list.filter((e) => e[0] === `response.${kind}.delta`).map((e) => e[1].delta).join('');
    same(list.find((e) => e[0] === `response.${kind}.done`)[1][done], deltas, kind);
  }
  for (const item of end.output.filter((i) => i.type === 'function_call'))
    same(list.filter((e) => e[0] === 'response.function_call_arguments.delta' && e[1].item_id === item.id).map((e) => e[1].delta).join(''), item.arguments);
  same([end.status, end.usage.output_tokens_details.reasoning_tokens > 5, end.usage.total_tokens], ['completed', true, end.usage.input_tokens + end.usage.output_tokens]);
  const whole = await post('/v1/responses', { input: rich, tools: tools.map((t) => ({ type: 'function', ...t.function })) });
  const bare = (r) => r.output.map(({ id, call_id, ...rest }) => rest);
  same(bare(whole), bare(end), 'in one piece');
});
await test('responses: cut and failed streams', async () => {
  const cut = await events('/v1/responses', { input: 'long:50', max_output_tokens: 3 });
  same(cut.at(-1)[0], 'response.incomplete');
  same(cut.at(-1)[1].response.output[0].status, 'incomplete');
  const bad = await events('/v1/responses', { input: 'say:fail:4 and more' });
  same(bad.at(-1)[0], 'response.failed');
  if (!/short read/.test(bad.at(-1)[1].response.error.message)) return JSON.stringify(bad.at(-1));
});
await test('messages: the order of events', async () => {
  const list = await events('/v1/messages', user(rich, { max_tokens: 999, tools: tools.map((t) => ({ name: t.function.name, input_schema: t.function.parameters })) }));
  same(list.every(([n, d]) => n === d.type), true, 'names');
  const block = ['content_block_start', 'content_block_delta', 'content_block_stop'];
  same(squeeze(list.map((e) => e[0])), ['message_start', 'ping', ...block, ...block, ...block, ...block, 'message_delta', 'message_stop']);
  const starts = list.filter((e) => e[0] === 'content_block_start').map((e) => e[1]);
  same(starts.map((s) => [s.index, s.content_block.type]), [[0, 'thinking'], [1, 'text'], [2, 'tool_use'], [3, 'tool_use']]);
  const deltas = (i) => list.filter((e) => e[0] === 'content_block_delta' && e[1].index === i).map((e) => e[1].delta);
  same(deltas(0).at(-1).type, 'signature_delta');
  same(deltas(0).slice(0, -1).map((d) => d.thinking).join('').trim(), 'hm, well');
  same(deltas(1).map((d) => d.text).join('').trim(), 'Look:');
  same(JSON.parse(deltas(2).map((d) => d.partial_json).join('')), { city: 'Oslo', n: 3 });
  const m = list[0][1].message, d = list.at(-2)[1];
  same([m.type, m.role, m.content, m.stop_reason, d.delta], ['message', 'assistant', [], null, { stop_reason: 'tool_use', stop_sequence: null }]);
  const bad = await events('/v1/messages', user('say:fail:4 and more', { max_tokens: 99 }));
  same([bad.at(-1)[0], bad.at(-1)[1].error.type], ['error', 'api_error']);
});
await test('chat and completions: failed streams', async () => {
  for (const [path, body] of [['/v1/chat/completions', user('say:fail:4 and more')], ['/v1/completions', { prompt: '<|im_start|>user\nsay:fail:3 x<|im_end|>\n<|im_start|>assistant\n' }]]) {
    const bad = (await events(path, body)).at(-1)[1];
    if (!/short read/.test(bad.error?.message)) return JSON.stringify(bad);
    const a = await post(path, body, 500);
    same(a.error.type, 'server_error');
  }
});
await test('a second turn says what it did not compute', async () => {
  const one = await post('/v1/messages', user('remember this long enough beginning of a conversation, please: 1234567890', { max_tokens: 200 }));
  const two = await post('/v1/messages', { max_tokens: 9, messages: [{ role: 'user', content: 'remember this long enough beginning of a conversation, please: 1234567890' },
    { role: 'assistant', content: one.content }, { role: 'user', content: 'and?' }] });
  if (two.usage.cache_read_input_tokens < one.usage.input_tokens) return JSON.stringify([one.usage, two.usage]);
});
await test('every documented field of each API is refused by name when its type is wrong', async () => {
  const needs = { '/v1/chat/completions': user('x'), '/v1/messages': user('x', { max_tokens: 1 }), '/v1/responses': { input: 'x' }, '/v1/completions': { prompt: 'x' } };
  const fields = { '/v1/chat/completions': 'messages tools tool_choice parallel_tool_calls max_tokens max_completion_tokens temperature top_p min_p repetition_penalty presence_penalty frequency_penalty top_k seed stop n logit_bias logprobs top_logprobs response_format stream stream_options reasoning_effort thinking_budget chat_template_kwargs user safety_identifier prompt_cache_key prompt_cache_retention metadata prediction store service_tier modalities verbosity audio web_search_options functions function_call nonsense',
    '/v1/completions': 'prompt max_tokens temperature top_p seed stop n logit_bias logprobs echo response_format stream stream_options user best_of suffix nonsense',
    '/v1/responses': 'input instructions tools tool_choice parallel_tool_calls max_output_tokens temperature top_p top_logprobs reasoning text include stream stream_options user safety_identifier prompt_cache_key metadata client_metadata max_tool_calls chat_template_kwargs store background truncation service_tier previous_response_id conversation prompt nonsense',
    '/v1/messages': 'messages system max_tokens temperature top_p top_k stop_sequences stream tools tool_choice thinking output_config output_format context_management metadata cache_control service_tier container mcp_servers nonsense' };
  for (const [path, names] of Object.entries(fields))
    for (const name of names.split(' ')) {
      const a = await post(path + `?${name}`, { ...needs[path], [name]: /user|identifier|key|retention|suffix|prompt$|input|instructions|system|stop|previous|conversation/.test(name) ? { a: 1 } : 'wrong' }, 400);
      if (!a.error?.message.includes(name.split('_')[0])) return `${path} ${name}: ${a.error.message}`;
    }
});
await test('models for every client', async () => {
  const a = await (await fetch(url + '/v1/models')).json();
  same([a.object, a.data[0].id, a.models[0].slug, a.models[0].context_window], ['list', 'fake', 'fake', 1024]);
  for (const key of ['display_name', 'shell_type', 'visibility', 'base_instructions', 'truncation_policy', 'supported_in_api']) if (!a.models[0][key]) return key;
});
await test('metrics are complete', async () => {
  const text = await (await fetch(url + '/metrics')).text();
  for (const name of ['prompt_tokens_total', 'tokens_predicted_total', 'requests_processing', 'requests_deferred', 'expert_hits_total', 'expert_misses_total', 'expert_evictions_total',
    'expert_read_bytes_total', 'expert_prefetch_used_total', 'expert_prefetch_wasted_total', 'time_to_first_token_seconds_bucket{le="+Inf"}', 'time_to_first_token_seconds_count', 'cached_tokens_total'])
    if (!text.includes(`\nflashchat:${name} `)) return name;
  for (const line of text.trim().split('\n')) if (!/^# (HELP|TYPE) flashchat:\w+ .+$|^flashchat:\w+(\{\w+="[^"]*"\})? [-+.e0-9]+$/.test(line)) return line;
});
