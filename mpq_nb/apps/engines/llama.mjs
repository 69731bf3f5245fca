// llama.cpp's answers: node llama.mjs MODEL.gguf TOKENS.json OUT.bin COUNT TEXTS.json
// writes the logits after every token as float32, [tokens, vocabulary], and prints as JSON
// {said: COUNT greedily chosen tokens, read: the tokens of each text, type: the file's type by its metadata}.
import {readFileSync, writeFileSync} from 'node:fs';
import {getLlama} from 'node-llama-cpp';

const [path, tokens, out, count, texts] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: 'never', skipDownload: true, logLevel: 'error'});
const model = await llama.loadModel({modelPath: path});
const context = await model.createContext({contextSize: 512});
const sequence = context.getSequence();
const ask = ids => sequence.controlledEvaluate(ids.map(id => [id, {generateNext: {logits: true}}]));
const best = logits => [...logits.entries()].reduce((a, b) => b[1] > a[1] ? b : a)[0];

const got = (await ask(JSON.parse(readFileSync(tokens)))).map(r => r.next.logits);
const rows = got.map(m => { const row = new Float32Array(m.size); for (const [id, v] of m) row[id] = v; return row; });
writeFileSync(out, Buffer.concat(rows.map(r => Buffer.from(r.buffer))));
let last = best(got.at(-1));
const said = [last];
while (said.length < Number(count)) { last = best((await ask([last]))[0].next.logits); said.push(last); }
const read = JSON.parse(readFileSync(texts)).map(t => model.tokenize(t, true));
console.log(JSON.stringify({said, read, type: model.typeDescription}));
await llama.dispose();
