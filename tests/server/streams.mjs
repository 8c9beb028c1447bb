// What several conversations say at once is what each says alone, greedily and sampled.   node streams.mjs URL
const url = process.argv[2];
const say = async (body) => {
  const a = await fetch(url + '/v1/chat/completions', { method: 'POST', body: JSON.stringify(body) });
  const text = await a.text();
  if (a.status !== 200) throw new Error(text);
  return JSON.parse(text).choices[0].message.content;
};
const topics = ['a river', 'three colours', 'bread', 'the moon', 'an old ship', 'rain', 'a small dog', 'winter'];
const filler = topics.flatMap((t, i) => topics.map((u) => `Mention ${t} and ${u}, but not more than ${i + 2} times.`));
const bodies = topics.map((t, i) => ({ messages: [{ role: 'user', content: `Write a short story about ${t}. ${filler.slice(0, i * 12).join(' ')}` }],
  max_tokens: 40, ...(i % 2 ? { temperature: 0 } : { temperature: 0.9, seed: 100 + i }) }));
const together = await Promise.all(bodies.map(say));
if (together.join('').length < 200) console.log(`FAIL streams: hardly anything was said: ${together}`);
for (const [i, body] of bodies.entries()) {
  const alone = await say(body), name = `streams: ${topics[i]}, ${i % 2 ? 'greedy' : 'sampled'}`;
  console.log(alone === together[i] ? `PASS ${name}` : `FAIL ${name}\n  together ${together[i]}\n  alone    ${alone}`);
}
