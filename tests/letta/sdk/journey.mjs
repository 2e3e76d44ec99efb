/*
 * journey.mjs - what a program does with Letta's TypeScript SDK, unmodified, against memfs alone.
 *
 *     node journey.mjs BASE_URL KEY SDK_FOLDER
 *
 * Each step is judged here as the program would see it; what git has of it is judged by the test, from the ids
 * that are printed at the end as one line of JSON.
 */
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [baseURL, apiKey, folder] = process.argv.slice(2);
const { Letta, NotFoundError, ConflictError } = createRequire(folder + "/")("@letta-ai/letta-client");
const client = new Letta({ baseURL, apiKey, maxRetries: 0 });

async function gather(page) {
    const all = [];
    for await (const one of page) all.push(one);
    return all;
}

async function fails(kind, promise) {
    await assert.rejects(promise, (e) => e instanceof kind || assert.fail(String(e)));
}

/* ---- agents ---- */

const agent = await client.agents.create({
    name: "Ada of the tests",
    description: "counts",
    metadata: { team: "blue" },
    tags: ["origin:test", "git-memory-enabled"],
    memory_blocks: [
        { label: "persona", value: "I count.", description: "who I am" },
        { label: "human", value: "" },
    ],
});
assert.match(agent.id, /^agent-[0-9a-f-]{36}$/);
assert.equal(agent.name, "Ada of the tests");
assert.deepEqual(new Set(agent.tags), new Set(["origin:test", "git-memory-enabled"]));

const bare = await client.agents.retrieve(agent.id);
assert.deepEqual(bare.tags, []);
const full = await client.agents.retrieve(agent.id, { include: ["agent.blocks", "agent.tags"] });
assert.equal(full.description, "counts");
assert.deepEqual(full.metadata, { team: "blue" });
assert.deepEqual(full.blocks.map((b) => b.label).sort(), ["system/human", "system/persona"]);

await client.agents.update(agent.id, { name: "Ada II", tags: ["origin:test", "second"] });
const renamed = await client.agents.retrieve(agent.id, { include: ["agent.tags"] });
assert.equal(renamed.name, "Ada II");
assert.ok(renamed.tags.includes("second"));
assert.deepEqual((await gather(client.agents.list({ tags: ["second"] }))).map((a) => a.id), [agent.id]);
assert.deepEqual((await gather(client.agents.list({ name: "Ada II" }))).map((a) => a.id), [agent.id]);

/* ---- an agent's blocks ---- */

const persona = await client.agents.blocks.retrieve("system/persona", { agent_id: agent.id });
assert.equal(persona.value, "I count.");
const changed = await client.agents.blocks.update("system/persona", { agent_id: agent.id, value: "I count twice." });
assert.equal(changed.value, "I count twice.");
assert.equal(changed.id, persona.id);
assert.equal(changed.description, "who I am");
const emptied = await client.agents.blocks.update("system/persona", { agent_id: agent.id, value: "" });
assert.equal(emptied.value, "");
await client.agents.blocks.update("system/persona", { agent_id: agent.id, value: "I count.", description: "me" });
await fails(NotFoundError, client.agents.blocks.update("system/nobody", { agent_id: agent.id, value: "x" }));
assert.equal((await gather(client.agents.blocks.list(agent.id, { limit: 1 }))).length, 2);

/* ---- blocks by themselves ---- */

const loose = await client.blocks.create({ label: "notes", value: "one", tags: ["a", "b"], limit: 4000 });
assert.equal(loose.limit, 4000);
assert.equal((await client.blocks.retrieve(loose.id)).value, "one");
assert.equal((await client.blocks.update(loose.id, { value: "two" })).value, "two");
assert.deepEqual((await gather(client.blocks.agents.list(loose.id))).map((a) => a.id), []);
await client.agents.blocks.attach(loose.id, { agent_id: agent.id });
await client.agents.blocks.attach(loose.id, { agent_id: agent.id }); // again: no harm
const attached = await client.agents.blocks.retrieve("notes", { agent_id: agent.id });
assert.equal(attached.id, loose.id);
assert.equal(attached.value, "two");
assert.equal(attached.limit, 4000);
assert.deepEqual(new Set(attached.tags), new Set(["a", "b"]));
assert.deepEqual((await gather(client.blocks.agents.list(loose.id))).map((a) => a.id), [agent.id]);
const twin = await client.blocks.create({ label: "notes", value: "another" });
await fails(ConflictError, client.agents.blocks.attach(twin.id, { agent_id: agent.id }));
assert.equal((await client.blocks.update(loose.id, { value: "three", tags: ["c"] })).value, "three");
assert.equal((await client.agents.blocks.retrieve("notes", { agent_id: agent.id })).value, "three");

/* ---- one block of two agents ---- */

const other = await client.agents.create({ name: "Bob" });
await client.agents.blocks.attach(loose.id, { agent_id: other.id });
await client.blocks.update(loose.id, { value: "four" });
for (const id of [agent.id, other.id])
    assert.equal((await client.agents.blocks.retrieve("notes", { agent_id: id })).value, "four");
await client.agents.blocks.detach(loose.id, { agent_id: other.id });
await fails(NotFoundError, client.agents.blocks.retrieve("notes", { agent_id: other.id }));
assert.equal((await client.agents.blocks.retrieve("notes", { agent_id: agent.id })).value, "four");
await client.agents.blocks.detach(loose.id, { agent_id: agent.id });
assert.equal((await client.blocks.retrieve(loose.id)).value, "four");
await client.agents.blocks.attach(loose.id, { agent_id: agent.id });
await client.blocks.delete(twin.id);
await fails(NotFoundError, client.blocks.retrieve(twin.id));
assert.ok((await gather(client.blocks.list({ label: "notes" }))).some((b) => b.id === loose.id));

/* ---- the prompt, and an end ---- */

const prompt = await client.agents.recompile(agent.id);
assert.equal(typeof prompt, "string");
assert.ok(prompt.includes("I count."));
await client.agents.delete(other.id);
await fails(NotFoundError, client.agents.retrieve(other.id));

console.log(JSON.stringify({ agent: agent.id, deleted: other.id, block: loose.id }));
