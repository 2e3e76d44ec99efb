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
const { Letta, NotFoundError, ConflictError, UnprocessableEntityError } =
    createRequire(folder + "/")("@letta-ai/letta-client");
let n_requests = 0;
const client = new Letta({
    baseURL,
    apiKey, // and as many retries as it makes by itself
    fetch: (...args) => (n_requests++, fetch(...args)),
});

/* every method of these is called, but for those that are not about memory */
const resources = {
    agents: client.agents,
    "agents.blocks": client.agents.blocks,
    blocks: client.blocks,
    "blocks.agents": client.blocks.agents,
    tags: client.tags,
};
const missed = new Set();
for (const [name, resource] of Object.entries(resources)) {
    for (const method of Object.getOwnPropertyNames(Object.getPrototypeOf(resource))) {
        if (["constructor", "exportFile", "importFile"].includes(method)) continue;
        const original = resource[method];
        missed.add(`${name}.${method}`);
        resource[method] = function (...args) {
            missed.delete(`${name}.${method}`);
            return original.apply(this, args);
        };
    }
}
assert.ok(missed.size >= 18);

async function gather(page) {
    const all = [];
    for await (const one of page) all.push(one);
    return all;
}

async function fails(kind, ask) {
    const before = n_requests;
    await assert.rejects(ask(), (e) => e instanceof kind || assert.fail(String(e)));
    assert.equal(n_requests, before + 1, "nothing that is refused for good is asked again");
}

const labels = (blocks) => blocks.map((b) => b.label).sort();

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
assert.deepEqual(labels(full.blocks), ["system/human", "system/persona"]);

const updated = await client.agents.update(agent.id, {
    name: "Ada II",
    tags: ["origin:test", "second"],
    system: "You count.",
    metadata: { team: "red" },
    description: null,
});
assert.deepEqual([updated.name, updated.system, updated.description], ["Ada II", "You count.", "counts"]);
assert.deepEqual(updated.metadata, { team: "red" });
assert.deepEqual(labels(updated.blocks), ["system/human", "system/persona"]);
const renamed = await client.agents.retrieve(agent.id, { include: ["agent.tags"] });
assert.equal(renamed.name, "Ada II");
assert.deepEqual(new Set(renamed.tags), new Set(["git-memory-enabled", "origin:test", "second"]));
const twins = [];
for (const name of ["one", "two", "three"])
    twins.push((await client.agents.create({ name, tags: ["many", name] })).id);
const listed = async (query) => (await gather(client.agents.list(query))).map((a) => a.id);
assert.deepEqual(await listed({ tags: ["second"] }), [agent.id]);
assert.deepEqual(await listed({ name: "Ada II" }), [agent.id]);
assert.deepEqual(await listed({ query_text: "ADA" }), [agent.id]);
assert.deepEqual(await listed({ tags: ["many"], limit: 2 }), twins.toReversed());
assert.deepEqual(await listed({ tags: ["many"], limit: 1, order: "asc" }), twins);
assert.deepEqual(await listed({ tags: ["many", "two"], match_all_tags: true }), [twins[1]]);
const [shown] = await gather(client.agents.list({ tags: ["second"], include: ["agent.blocks"] }));
assert.deepEqual(labels(shown.blocks), ["system/human", "system/persona"]);
const nobody = "agent-00000000-0000-4000-8000-000000000000";
await fails(NotFoundError, () => client.agents.retrieve(nobody));
await fails(NotFoundError, () => client.agents.update(nobody, { name: "x" }));
await fails(UnprocessableEntityError, () => client.agents.retrieve("agent-1"));
await fails(UnprocessableEntityError, () => client.agents.create({ name: "a/b" }));

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
await fails(NotFoundError, () => client.agents.blocks.update("system/nobody", { agent_id: agent.id, value: "x" }));
assert.deepEqual(labels(await gather(client.agents.blocks.list(agent.id, { limit: 1 }))), [
    "system/human",
    "system/persona",
]);
const whole = await client.agents.blocks.update("system/human", {
    agent_id: agent.id,
    label: "system/user",
    value: "Likes tea.",
    limit: 7,
    metadata: { a: [1] },
    read_only: true,
    tags: ["x"],
    hidden: true,
});
assert.deepEqual(
    [whole.label, whole.value, whole.limit, whole.read_only, whole.hidden, whole.tags, whole.metadata],
    ["system/user", "Likes tea.", 7, true, true, ["x"], { a: [1] }],
);
await fails(NotFoundError, () => client.agents.blocks.retrieve("system/human", { agent_id: agent.id }));
assert.deepEqual(await client.agents.blocks.retrieve("system/user", { agent_id: agent.id }), whole);
await fails(
    ConflictError,
    () => client.agents.blocks.update("system/user", { agent_id: agent.id, label: "system/persona" }),
);
await client.agents.blocks.update("system/user", {
    agent_id: agent.id,
    label: "system/human",
    value: "",
    read_only: false,
    hidden: false,
    tags: [],
});
/* what somebody else changed meanwhile is not overwritten */
const { response: seen } = await client.agents.blocks
    .retrieve("system/persona", { agent_id: agent.id })
    .withResponse();
const stale = { headers: { "If-Match": seen.headers.get("etag") } };
const said = await client.agents.blocks.update("system/persona", { agent_id: agent.id, value: "I add." }, stale);
assert.equal(said.value, "I add.");
await fails(
    ConflictError,
    () => client.agents.blocks.update("system/persona", { agent_id: agent.id, value: "lost" }, stale),
);
await client.agents.blocks.update("system/persona", { agent_id: agent.id, value: "I count." });

/* ---- blocks by themselves ---- */

const loose = await client.blocks.create({ label: "notes", value: "one", tags: ["a", "b"], limit: 4000 });
assert.equal(loose.limit, 4000);
assert.equal((await client.blocks.retrieve(loose.id)).value, "one");
assert.equal((await client.blocks.update(loose.id, { value: "two" })).value, "two");
assert.deepEqual((await gather(client.blocks.agents.list(loose.id))).map((a) => a.id), []);
const having = await client.agents.blocks.attach(loose.id, { agent_id: agent.id });
assert.equal(having.id, agent.id);
assert.deepEqual(labels(having.blocks), ["notes", "system/human", "system/persona"]);
await client.agents.blocks.attach(loose.id, { agent_id: agent.id }); // again: no harm
const attached = await client.agents.blocks.retrieve("notes", { agent_id: agent.id });
assert.equal(attached.id, loose.id);
assert.equal(attached.value, "two");
assert.equal(attached.limit, 4000);
assert.deepEqual(new Set(attached.tags), new Set(["a", "b"]));
assert.deepEqual((await gather(client.blocks.agents.list(loose.id))).map((a) => a.id), [agent.id]);
const twin = await client.blocks.create({ label: "notes", value: "another" });
await fails(ConflictError, () => client.agents.blocks.attach(twin.id, { agent_id: agent.id }));
assert.equal((await client.blocks.update(loose.id, { value: "three", tags: ["c"] })).value, "three");
assert.equal((await client.agents.blocks.retrieve("notes", { agent_id: agent.id })).value, "three");

/* ---- one block of two agents ---- */

const other = await client.agents.create({ name: "Bob" });
await client.agents.blocks.attach(loose.id, { agent_id: other.id });
await client.blocks.update(loose.id, { value: "four" });
for (const id of [agent.id, other.id])
    assert.equal((await client.agents.blocks.retrieve("notes", { agent_id: id })).value, "four");
await client.agents.blocks.detach(loose.id, { agent_id: other.id });
await fails(NotFoundError, () => client.agents.blocks.retrieve("notes", { agent_id: other.id }));
assert.equal((await client.agents.blocks.retrieve("notes", { agent_id: agent.id })).value, "four");
const without = await client.agents.blocks.detach(loose.id, { agent_id: agent.id });
assert.deepEqual(labels(without.blocks), ["system/human", "system/persona"]);
await fails(NotFoundError, () => client.agents.blocks.detach(loose.id, { agent_id: agent.id }));
assert.equal((await client.blocks.retrieve(loose.id)).value, "four");
const ids = async (query) => (await gather(client.blocks.list({ limit: 1, ...query }))).map((b) => b.id);
assert.deepEqual(await ids({ label: "notes", connected_to_agents_count_eq: [0] }), [loose.id, twin.id].sort());
assert.deepEqual(await ids({ tags: ["c"] }), [loose.id]);
assert.deepEqual(await ids({ value_search: "FOU", label_search: "ote" }), [loose.id]);
await client.agents.blocks.attach(loose.id, { agent_id: agent.id });
assert.equal(await client.blocks.delete(twin.id), null);
await fails(NotFoundError, () => client.blocks.delete(twin.id));
await fails(NotFoundError, () => client.blocks.update(twin.id, { value: "x" }));
await fails(NotFoundError, () => client.blocks.retrieve(twin.id));
assert.ok((await gather(client.blocks.list({ label: "notes" }))).some((b) => b.id === loose.id));

/* ---- the tags of all of them ---- */

const tags = (await client.tags.list()).filter((tag) => tag !== "git-memory-enabled");
assert.deepEqual(tags, ["c", "many", "one", "origin:test", "second", "three", "two"]);
assert.deepEqual(await client.tags.list({ name: "ON", order: "asc", order_by: "name" }), ["one", "second"]);
assert.deepEqual(await client.tags.list({ query_text: "sec" }), ["second"]);
assert.deepEqual(await client.tags.list({ after: "many", before: "three", limit: 2 }), ["one", "origin:test"]);
assert.deepEqual(await client.tags.list({ order: "desc", after: "one", limit: 1 }), ["many"]);
await fails(UnprocessableEntityError, () => client.tags.list({ order_by: "created_at" }));

/* ---- the prompt, and an end ---- */

const prompt = await client.agents.recompile(agent.id);
assert.equal(typeof prompt, "string");
assert.ok(prompt.includes("You count.") && prompt.includes("I count."));
assert.equal(await client.agents.recompile(agent.id, { dry_run: true, update_timestamp: false }), prompt);
assert.deepEqual(await client.agents.delete(other.id), { message: `Agent id=${other.id} successfully deleted` });
await fails(NotFoundError, () => client.agents.retrieve(other.id));
await fails(NotFoundError, () => client.agents.delete(other.id));
await fails(NotFoundError, () => client.agents.recompile(other.id));
assert.deepEqual(await listed({ name: "Bob" }), []);

assert.deepEqual([...missed], []);

console.log(JSON.stringify({ agent: agent.id, deleted: other.id, block: loose.id }));
