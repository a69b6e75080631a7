// Conversations over matrix-js-sdk, each about one thing.
//
// usage: node features.mjs BASE_URL
//
// Each has users and rooms of its own. A line `@restart` on the output asks whoever runs this to kill the server
// and to start it again, and then to write a line to the input. Ends with status 0 and one line per step, or with the
// step that failed.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { createInterface } from "node:readline";

import { Device, converse, login, refused, register, sdk, sleep, step, until } from "./lib.mjs";

// Messages sent while the server goes away and comes back.
const LINES = 30;
const RESTART_AFTER = 10;
const { EventType, MsgType, Preset, ReceiptType, RelationType } = sdk;

// Users and rooms of one conversation.
class World {
    constructor(baseUrl) {
        this.baseUrl = baseUrl;
        this.suffix = randomBytes(4).toString("hex");
        this.devices = [];
    }

    async device(login) {
        const device = new Device(this.baseUrl, login);
        this.devices.push(device);
        return device.start();
    }

    async user(name) {
        return this.device(await register(this.baseUrl, `js-${name}-${this.suffix}`));
    }

    // Another device of a user.
    async again(of) {
        return this.device(await login(this.baseUrl, of.userId));
    }

    // A room in which all of them are, and know it.
    async room(by, others, options = {}) {
        const invite = others.map((other) => other.userId);
        const { room_id: id } = await by.client.createRoom({ preset: Preset.PrivateChat, invite, ...options });
        for (const other of others) await other.client.joinRoom(id);
        await Promise.all([by, ...others].map((device) => device.joined(id)));
        return id;
    }
}

const member = (device, room, user) => device.room(room)?.getMember(user.userId)?.membership;
const texts = (device, room) =>
    device.room(room).getLiveTimeline().getEvents().filter((event) => event.getType() === EventType.RoomMessage);

async function knocking(world) {
    const alice = await world.user("alice");
    const bob = await world.user("bob");
    const cyd = await world.user("cyd");
    const rule = { type: EventType.RoomJoinRules, state_key: "", content: { join_rule: "knock" } };
    const room = await world.room(alice, [], { name: "Club", initial_state: [rule] });
    await refused("M_FORBIDDEN", 403, "joining without an invitation", bob.client.joinRoom(room));

    for (const guest of [bob, cyd]) {
        await guest.client.knockRoom(room, { reason: "I bring cake" });
        await until("the knock at the door", () => member(alice, room, guest) === "knock");
        await until("the own knock", () => guest.room(room)?.getMyMembership() === "knock");
        assert.equal(guest.room(room).name, "Club", "the room's name for who knocks");
    }
    step("knocked");

    await alice.client.invite(room, bob.userId);
    await until("the invitation", () => bob.room(room).getMyMembership() === "invite");
    await bob.client.joinRoom(room);
    await bob.joined(room);
    const hello = await bob.client.sendTextMessage(room, "here is the cake");
    await alice.event(room, hello.event_id);

    await alice.client.kick(room, cyd.userId, "no more chairs");
    await until("Cyd sent away, at Bob", () => member(bob, room, cyd) === "leave");
    await until("Cyd sent away, at Cyd", () => cyd.room(room).getMyMembership() === "leave");
    const denied = cyd.client.sendTextMessage(room, "hello?");
    await refused("M_FORBIDDEN", 403, "sending from outside", denied);
    step("let one in, sent one away");
}

// One user reads on one device and privately; the other device must end in the same state, others see nothing.
async function readStates(world) {
    const alice = await world.user("alice");
    const phone = await world.again(alice);
    const bob = await world.user("bob");
    const room = await world.room(bob, [alice]);
    await phone.joined(room);
    const said = [];
    for (let n = 0; n < 5; n++) said.push((await bob.client.sendTextMessage(room, `line ${n}`)).event_id);
    const unread = (device) => device.room(room).getUnreadNotificationCount("total");
    for (const device of [alice, phone]) await until("five unread", () => unread(device) === 5);

    const last = await alice.event(room, said[4]);
    await alice.client.sendReadReceipt(last, ReceiptType.ReadPrivate);
    for (const device of [alice, phone]) await until("nothing unread", () => unread(device) === 0);
    const { Read, ReadPrivate } = ReceiptType;
    const readUpTo = (device, kind) => device.room(room).getReadReceiptForUserId(alice.userId, true, kind)?.eventId;
    await until("the private receipt on the phone", () => readUpTo(phone, ReadPrivate) === said[4]);
    // What comes after shows that it is not merely late.
    const marker = (await alice.client.sendTextMessage(room, "read it all")).event_id;
    await bob.event(room, marker);
    for (const kind of [Read, ReadPrivate]) assert.notEqual(readUpTo(bob, kind), said[4], `a private receipt at Bob`);

    const more = (await bob.client.sendTextMessage(room, "one more")).event_id;
    await phone.client.sendReadReceipt(await phone.event(room, more), Read);
    await until("the public receipt", () => readUpTo(bob, Read) === more);
    await until("nothing unread at the first device", () => unread(alice) === 0);
    step("read on one device, saw it on the other");
}

// A room gets a successor: who was in finds the way, and what matters comes along.
async function upgrade(world) {
    const alice = await world.user("alice");
    const bob = await world.user("bob");
    const old = await world.room(alice, [bob], { name: "Shed", topic: "Tools", room_version: "10" });
    const { replacement_room: successor } = await alice.client.upgradeRoom(old, "11");
    const tombstone = () => bob.room(old).currentState.getStateEvents(EventType.RoomTombstone, "");
    const { replacement_room: found } = (await until("the tombstone", tombstone)).getContent();
    assert.equal(found, successor, "where the tombstone points");
    await refused("M_FORBIDDEN", 403, "talking in the old room", bob.client.sendTextMessage(old, "anybody?"));
    await alice.client.invite(successor, bob.userId);
    await bob.client.joinRoom(successor);
    const room = await bob.joined(successor);
    await until("the topic", () => room.currentState.getStateEvents(EventType.RoomTopic, ""));
    assert.equal(room.name, "Shed");
    assert.equal(room.currentState.getStateEvents(EventType.RoomTopic, "").getContent().topic, "Tools");
    assert.equal(room.getVersion(), "11");
    assert.equal(room.findPredecessor().roomId, old, "where it came from");
    const history = bob.client.getRoomUpgradeHistory(successor, true).map((one) => one.roomId);
    assert.deepEqual(history, [old, successor]);
    const hello = await bob.client.sendTextMessage(successor, "all here");
    await alice.event(successor, hello.event_id);
    step("moved to an upgraded room");
}

// A thread with an edit and a redaction in it, and what whoever asks for its first message is told with it.
async function threads(world) {
    const alice = await world.user("alice");
    const bob = await world.user("bob");
    const room = await world.room(alice, [bob]);
    const { event_id: question } = await alice.client.sendTextMessage(room, "what is for dinner?");
    const relate = async (kind, to, body, more = {}) => {
        const relation = { rel_type: kind, event_id: to };
        const content = { msgtype: MsgType.Text, body, "m.relates_to": relation, ...more };
        return (await bob.client.sendEvent(room, EventType.RoomMessage, content)).event_id;
    };
    const ideas = [];
    for (let n = 0; n < 3; n++) ideas.push(await relate(RelationType.Thread, question, `idea ${n}`));
    const soup = { msgtype: MsgType.Text, body: "soup" };
    const edit = await relate(RelationType.Replace, ideas[2], "* soup", { "m.new_content": soup });
    const shown = () => alice.room(room).findEventById(ideas[2])?.getContent().body;
    await until("the edit, as the SDK shows it", () => shown() === "soup");
    await bob.client.redactEvent(room, ideas[0]);

    for (const device of [alice, bob]) {
        const { unsigned } = await device.client.fetchRoomEvent(room, question);
        const thread = unsigned["m.relations"][RelationType.Thread];
        assert.deepEqual([thread.count, thread.latest_event.event_id], [2, ideas[2]]);
        assert.equal(thread.latest_event.content.body, "idea 2", "what was said first stays");
        assert.equal(thread.current_user_participated, true);
        const replaced = thread.latest_event.unsigned["m.relations"][RelationType.Replace];
        assert.deepEqual([replaced.event_id, replaced.content["m.new_content"]], [edit, soup]);
    }
    const found = await alice.client.relations(room, question, RelationType.Thread, EventType.RoomMessage);
    assert.deepEqual(found.events.map((event) => event.getId()), [ideas[2], ideas[1]]);
    const path = `/rooms/${encodeURIComponent(room)}/threads`;
    const { chunk } = await alice.client.http.authedRequest("GET", path, {}, undefined, { prefix: "/_matrix/client/v1" });
    assert.deepEqual(chunk.map((event) => event.event_id), [question]);
    step("talked in a thread, edited and took back");
}

// Who is ignored is not heard, by that user only and for as long as that lasts.
async function ignoring(world) {
    const alice = await world.user("alice");
    const bob = await world.user("bob");
    const cyd = await world.user("cyd");
    const room = await world.room(alice, [bob, cyd]);
    await alice.client.setIgnoredUsers([bob.userId]);
    const unheard = (await bob.client.sendTextMessage(room, "can you hear me?")).event_id;
    const elsewhere = await world.room(bob, []);
    await bob.client.invite(elsewhere, alice.userId);
    await cyd.event(room, unheard);
    // What comes after shows that it is not merely late.
    await alice.event(room, (await cyd.client.sendTextMessage(room, "hello")).event_id);
    await until("the list", () => alice.client.isUserIgnored(bob.userId));
    assert(!texts(alice, room).some((event) => event.getId() === unheard), "an ignored user was heard");
    assert.equal(alice.room(elsewhere), null, "an ignored user's invitation came");

    await alice.client.setIgnoredUsers([]);
    await alice.event(room, (await bob.client.sendTextMessage(room, "and now?")).event_id);
    const path = `/rooms/${encodeURIComponent(room)}/messages`;
    const { chunk } = await alice.client.http.authedRequest("GET", path, { dir: "b", limit: "50" });
    assert(chunk.some((event) => event.event_id === unheard), "what was said meanwhile");
    step("ignored somebody for a while");
}

// The server is killed under a waiting /sync while somebody talks: nothing is lost, nothing comes twice.
async function restart(world) {
    const alice = await world.user("alice");
    const bob = await world.user("bob");
    const room = await world.room(alice, [bob]);
    const states = [];
    bob.client.on(sdk.ClientEvent.Sync, (state) => states.push(state));
    // Sends with one transaction id until an answer comes.
    const insist = async (n) => {
        const path = `/rooms/${encodeURIComponent(room)}/send/${EventType.RoomMessage}/line-${n}`;
        const content = { msgtype: MsgType.Text, body: `line ${n}` };
        for (;;) {
            try {
                return (await alice.client.http.authedRequest("PUT", path, undefined, content)).event_id;
            } catch (error) {
                assert.equal(error.httpStatus, undefined, `refused: ${error}`);
                await sleep(50);
            }
        }
    };
    await sleep(500);
    await restarted();
    const said = [];
    for (let n = 0; n < RESTART_AFTER; n++) said.push(await insist(n));
    const away = restarted();
    for (let n = RESTART_AFTER; n < LINES; n++) said.push(await insist(n));
    await away;
    // What is sent with an old id once more is the old event.
    assert.equal(await insist(RESTART_AFTER), said[RESTART_AFTER]);
    await bob.event(room, said.at(-1));
    // Where too much has happened for one answer, the SDK goes back for the rest.
    while (!texts(bob, room).some((event) => event.getId() === said[0])) {
        assert(bob.room(room).oldState.paginationToken, "the history goes back to the first line");
        await bob.client.scrollback(bob.room(room), 10);
    }
    const got = texts(bob, room).map((event) => event.getId());
    assert.deepEqual(got, said, "lines through two restarts");
    assert(states.includes("RECONNECTING"), `the SDK noticed: ${states}`);
    step(`talked through restarts, and the SDK was ${[...new Set(states)].join(", ")}`);
}

const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// Has the server killed and started again.
async function restarted() {
    process.stdout.write("@restart\n");
    const { done } = await input.next();
    assert(!done, "whoever runs this restarts the server");
}

await converse(async (baseUrl) => {
    for (const conversation of [knocking, readStates, upgrade, threads, ignoring, restart]) {
        const world = new World(baseUrl);
        try {
            await conversation(world);
        } finally {
            world.devices.forEach((device) => device.client.stopClient());
        }
    }
});
