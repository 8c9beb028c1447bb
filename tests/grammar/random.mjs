// random.mjs DRIVER DIR N: N random schemas; what is written under each of them must be valid for ajv, and so must the
// arguments of tool calls in both forms.
import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
const require = createRequire(import.meta.url);
const Ajv = require("ajv/dist/2020.js").default;

const [driver, dir, count] = [process.argv[2], process.argv[3], Number(process.argv[4])];
let seed = 12345;
const random = (n) => {             // a small generator, the same everywhere
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 4294967296) * n);
};
const pick = (list) => list[random(list.length)];
const chance = (percent) => random(100) < percent;
const names = ["a", "b", "name", "the value", "city", "été", "x\"y", "kind", "n", "items", "日本", "long_property_name", "A"];
const strings = ["", "x", "red", "green", "a \"quoted\" \\ word", "über", "line\nbreak", "5", "null", "😀", "</tag>"];
const patterns = ["^[a-z]{2,5}$", "^\\d{3}-\\d{4}$", "^(yes|no|maybe so)$", "foo|bar", "^#[0-9A-Fa-f]{6}$", "^[^a-z]*$",
  "^\\w+@\\w+\\.(com|org)$", "^.{0,8}$", "[\\u00e0-\\u00ff]+x?$", "^(a|bc)*d$", "^\\s\\S$", "^[\"\\\\\\n]{1,3}$"];

const bounds = (low, high, words, span) => {
  const out = {}, from = low + random(span);
  if (chance(50)) out[words[0]] = from;
  if (chance(50)) out[words[1]] = from + random(high);
  return out;
};
const constant = () => pick([() => pick(strings), () => random(2000) - 1000, () => random(1000) / 8, () => null, () => chance(50),
  () => [1, "a"], () => ({ k: [], "k 2": null })])();

function schema(depth, defs) {
  const leaf = depth <= 0;
  const kind = pick(leaf ? ["string", "integer", "number", "boolean", "null", "enum", "const"]
    : ["string", "string", "integer", "number", "boolean", "enum", "const", "object", "object", "object", "array", "array",
      "anyOf", "oneOf", "allOf", "types", "any", "ref"]);
  switch (kind) {
    case "string":
      if (chance(30)) return { type: "string", pattern: pick(patterns), ...(chance(20) ? { maxLength: 20 } : {}) };
      return { type: "string", ...bounds(0, 30, ["minLength", "maxLength"], 6), ...(chance(10) ? { format: "email" } : {}) };
    case "integer": {
      const low = random(4000) - 2000;
      return { type: "integer", ...bounds(low, 5000, pick([["minimum", "maximum"], ["exclusiveMinimum", "exclusiveMaximum"]]), 10),
        ...(chance(5) ? { maximum: 999999999999999 } : {}) };
    }
    case "number": return { type: "number", ...bounds(random(40) - 20 + pick([0, 0.5]), 30,
      pick([["minimum", "maximum"], ["exclusiveMinimum", "exclusiveMaximum"]]), 3) };
    case "enum": return { enum: Array.from({ length: 1 + random(5) }, constant) };
    case "const": return { const: constant() };
    case "object": {
      const properties = {}, required = [];
      for (let i = random(5); i > 0; i--) {
        const name = pick(names);
        properties[name] = schema(depth - 1, defs);
        if (chance(50)) required.push(name);
      }
      if (chance(10)) required.push("not listed");
      const out = { type: "object", properties, required: [...new Set(required)] };
      if (chance(50)) out.additionalProperties = pick([true, false, false, schema(0, defs)]);
      if (out.additionalProperties === false) out.required = out.required.filter((n) => n in properties);
      if (chance(10)) delete out.type;
      return out;
    }
    case "array": {
      const out = { type: "array", ...(chance(80) ? { items: schema(depth - 1, defs) } : {}), ...bounds(0, 4, ["minItems", "maxItems"], 3) };
      if (chance(30)) out.prefixItems = Array.from({ length: 1 + random(3) }, () => schema(depth - 1, defs));
      return out;
    }
    case "anyOf": return { anyOf: Array.from({ length: 1 + random(4) }, () => schema(depth - 1, defs)) };
    case "oneOf": {
      if (chance(40)) return { oneOf: [{ type: "string" }, schema(0, defs), { type: "array", items: schema(0, defs) }] };
      const one = (k) => ({ type: "object", properties: { kind: { const: k }, v: schema(depth - 1, defs) }, required: ["kind"] });
      return { oneOf: ["p", "q", "r"].slice(0, 1 + random(3)).map(one) };
    }
    case "allOf": return { allOf: [
      { type: "object", properties: { a: schema(depth - 1, defs), b: { type: ["string", "null"] } } },
      { properties: { b: { type: ["string", "integer"] }, c: schema(0, defs) }, required: pick([["b"], ["b", "c"], []]) }] };
    case "types": return { type: pick([["string", "null"], ["integer", "boolean"], ["array", "null", "number"]]), minLength: 1 };
    case "any": return pick([{}, true]);
    default: return { $ref: "#/$defs/" + pick(defs) };
  }
}

function document() {
  const defs = ["node", "pair"];
  const out = schema(3, defs);
  const $defs = { node: { type: "object", properties: { next: { anyOf: [{ $ref: "#/$defs/node" }, { type: "null" }] }, v: schema(0, defs) },
    required: ["next"] }, pair: { type: "array", prefixItems: [schema(0, defs), schema(0, defs)], minItems: 2, items: false } };
  return typeof out === "object" ? { ...out, $defs } : { anyOf: [out], $defs };
}

// The same properties at the top, for tools.
function tool(i) {
  const properties = {}, required = [];
  for (let k = 0; k < 4; k++) {
    const name = pick(names.filter((n) => !/["]/.test(n)));
    properties[name] = schema(2, ["node", "pair"]);
    if (chance(50)) required.push(name);
  }
  const { $defs } = document();
  return { type: "function", function: { name: "tool_" + i, parameters: { type: "object", properties, required: [...new Set(required)], $defs } } };
}

const jobs = [];
for (let i = 0; i < count; i++) {
  if (i % 4 === 3) jobs.push({ seed: i, tools: [tool(1), tool(2)], format: chance(50) ? "qwen3-coder" : "hermes" });
  else jobs.push({ seed: i, schema: document() });
}

const run = spawnSync(driver, [dir], { input: jobs.map((j) => JSON.stringify(j)).join("\n") + "\n", maxBuffer: 1 << 30 });
const lines = run.stdout.toString("utf8").trim().split("\n");
if (run.status !== 0 || lines.length !== count) {
  console.log(`FAIL the driver ended with ${run.status} ${run.signal ?? ""} after ${lines.length} of ${count} jobs: ${run.stderr}`);
  process.exit(1);
}
const ajv = new Ajv({ strict: false, validateFormats: false });
const result = { valid: 0, calls: 0, refused: 0, long: 0, bad: 0 };
const reasons = {};
const complain = (job, text, why) => {
  if (++result.bad <= 5) console.log(`job ${JSON.stringify(job)}\nwrote ${JSON.stringify(text).slice(0, 3000)}\n${why}\n`);
};
const check = (schema, text, job) => {
  let value;
  try { value = JSON.parse(text); } catch (e) { return complain(job, text, e.message); }
  const validate = ajv.compile(schema);
  if (!validate(value)) return complain(job, text, JSON.stringify(validate.errors));
  result.valid++;
};
lines.forEach((line, i) => {
  const job = jobs[i], out = JSON.parse(line);
  if (out.error) {
    result.refused++;
    const reason = out.error.replace(/.*: /, "");
    reasons[reason] = (reasons[reason] ?? 0) + 1;
  } else if (out.long !== undefined) result.long++;         // endless recursion by chance: nothing to judge
  else if (out.stuck !== undefined) complain(job, out.stuck, "stuck");
  else if (job.schema !== undefined) check(job.schema, out.text, job);
  else {
    if (!out.calls.length) complain(job, out.text, "no call was parsed");
    for (const call of out.calls) {
      const t = job.tools.find((x) => x.function.name === call.name);
      if (!t || call.cut) complain(job, out.text, "unknown or cut call " + call.name);
      else { result.calls++; check(t.function.parameters, call.arguments, { ...job, text: out.text }); }
    }
  }
});
console.log(JSON.stringify({ ...result, reasons }));
const enough = result.refused < count * 0.25 && result.long <= count * 0.01;
console.log(`${result.bad === 0 ? "PASS" : "FAIL"} ${result.valid} values (${result.calls} of them calls' arguments) are valid for ajv`);
console.log(`${enough ? "PASS" : "FAIL"} ${result.refused} of ${count} schemas were refused, ${result.long} texts did not end`);
process.exit(result.bad === 0 && enough ? 0 : 1);
