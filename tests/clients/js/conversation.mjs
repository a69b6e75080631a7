// A conversation of two people over matrix-js-sdk.
//
// usage: node conversation.mjs BASE_URL
//
// Alice has two devices, Bob one, and each runs the SDK's own /sync loop. Every step is checked in the SDK's
// model of the side that must see it. Ends with status 0 and one line per step, or with the step that failed.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";

import { Device, converse, login, refused, register, sdk, step, until } from "./lib.mjs";

const PAGE = 10;
const HISTORY = 35;
const { EventType, RelationType, MsgType, ReceiptType, Preset } = sdk;

class Conversation {
    constructor(baseUrl) {
        this.baseUrl = baseUrl;
        this.suffix = randomBytes(4).toString("hex");
        this.devices = [];
    }

    async run() {
        try {
            await this.accounts();
            await this.rooms();
            await this.directChat();
            await this.messages();
            await this.relations();
            await this.ephemerals();
            await this.history();
            await this.profiles();
            await this.goodbye();
        } finally {
            this.devices.forEach((device) => device.client.stopClient());
        }
    }

    async device(login) {
        const device = new Device(this.baseUrl, login);
        this.devices.push(device);
        return device.start();
    }

    async accounts() {
        this.aliceName = `js-alice-${this.suffix}`;
        this.bobName = `js-bob-${this.suffix}`;
        const alice = await register(this.baseUrl, this.aliceName);
        const bob = await register(this.baseUrl, this.bobName);
        await refused("M_USER_IN_USE", 400, "registering a taken name", register(this.baseUrl, this.aliceName));
        step("registered Alice and Bob");

        const second = await login(this.baseUrl, this.aliceName);
        assert.equal(second.user_id, alice.user_id);
        const wrong = login(this.baseUrl, this.aliceName, "wrong horse");
        await refused("M_FORBIDDEN", 403, "login with a wrong password", wrong);

        this.alice = await this.device(alice);
        this.alice2 = await this.device(second);
        this.bob = await this.device(bob);
        const { devices } = await this.alice.client.getDevices();
        assert.deepEqual(devices.map((d) => d.display_name).sort(), ["first device", "second device"]);
        await this.alice.client.setDisplayName("Alice");
        step("logged in on a second device");
    }

    async rooms() {
        const { alice, alice2, bob } = this;
        const created = await alice.client.createRoom({
            name: "Garden",
            topic: "Tomatoes",
            preset: Preset.PrivateChat,
            invite: [bob.userId],
        });
        const id = (this.roomId = created.room_id);
        await until("Bob's invite", () => bob.room(id)?.getMyMembership() === "invite");
        assert.equal(bob.room(id).name, "Garden", "the room's name in the invite");
        assert.equal(bob.room(id).getMember(bob.userId).events.member.getSender(), alice.userId);
        await bob.client.joinRoom(id);
        await Promise.all([alice, alice2, bob].map((device) => device.joined(id)));
        await until("Bob's join at Alice", () => alice.room(id).getMember(bob.userId)?.membership === "join");
        await until("the room's state at Bob", () => bob.room(id).currentState.getStateEvents("m.room.topic", ""));
        assert.equal(bob.room(id).name, "Garden");
        const topic = bob.room(id).currentState.getStateEvents("m.room.topic", "").getContent().topic;
        assert.equal(topic, "Tomatoes");
        assert.equal(bob.room(id).getJoinedMemberCount(), 2);
        assert.equal(bob.room(id).getMember(alice.userId).name, "Alice");
        step("created a room, invited and joined");
    }

    async directChat() {
        const { alice, alice2, bob } = this;
        const invite = [bob.userId];
        const created = await alice.client.createRoom({ is_direct: true, preset: Preset.TrustedPrivateChat, invite });
        const id = created.room_id;
        await alice.client.setAccountData(EventType.Direct, { [bob.userId]: [id] });
        const direct = await until("m.direct on the second device", () => alice2.client.getAccountData("m.direct"));
        assert.deepEqual(direct.getContent(), { [bob.userId]: [id] });
        await until("the direct invite", () => bob.room(id)?.getMyMembership() === "invite");
        assert.equal(bob.room(id).getDMInviter(), alice.userId, "is_direct in the invite");
        await bob.client.joinRoom(id);
        await bob.joined(id);
        const sent = await bob.client.sendTextMessage(id, "only us");
        assert.equal((await alice.event(id, sent.event_id)).getContent().body, "only us");
        step("opened a direct chat");
    }

    async messages() {
        const { alice, alice2, bob, roomId } = this;
        const sent = await alice.client.sendTextMessage(roomId, "helo");
        this.original = sent.event_id;
        for (const device of [alice, alice2, bob]) {
            const event = await device.event(roomId, sent.event_id);
            assert.equal(event.getContent().body, "helo");
            assert.equal(event.getSender(), alice.userId);
        }
        // The echo on the sending device has replaced the pending event, not joined it.
        const bodies = alice.room(roomId).getLiveTimeline().getEvents().map((e) => e.getContent().body);
        assert.equal(bodies.filter((body) => body === "helo").length, 1);
        await until("an unread message", () => bob.room(roomId).getUnreadNotificationCount("total") >= 1);

        const content = { msgtype: MsgType.Text, body: "once" };
        const txn = `again-${this.suffix}`;
        const first = await alice2.client.sendEvent(roomId, EventType.RoomMessage, content, txn);
        const path = `/rooms/${encodeURIComponent(roomId)}/send/m.room.message/${txn}`;
        const again = await alice2.client.http.authedRequest("PUT", path, undefined, content);
        assert.equal(again.event_id, first.event_id, "same transaction id, same event");
        step("sent");
    }

    async relations() {
        const { alice, bob, roomId, original } = this;
        const edit = await alice.client.sendEvent(roomId, EventType.RoomMessage, {
            "msgtype": MsgType.Text,
            "body": "* hello",
            "m.new_content": { msgtype: MsgType.Text, body: "hello" },
            "m.relates_to": { rel_type: RelationType.Replace, event_id: original },
        });
        await bob.event(roomId, edit.event_id);
        const edited = await bob.event(roomId, original);
        await until("the edit applied", () => edited.replacingEventId() === edit.event_id);
        assert.equal(edited.getContent().body, "hello");

        const reaction = await bob.client.sendEvent(roomId, EventType.Reaction, {
            "m.relates_to": { rel_type: RelationType.Annotation, event_id: original, key: "👍" },
        });
        await alice.event(roomId, reaction.event_id);
        const relations = alice.room(roomId).relations;
        const children = () => relations.getChildEventsForEvent(original, RelationType.Annotation, EventType.Reaction);
        const sorted = await until("the reaction counted", () => children()?.getSortedAnnotationsByKey());
        assert.deepEqual(sorted.map(([key, events]) => [key, events.size]), [["👍", 1]]);
        step("edited and reacted");

        const regretted = await bob.client.sendTextMessage(roomId, "forget this");
        const seen = await alice.event(roomId, regretted.event_id);
        await bob.client.redactEvent(roomId, regretted.event_id, undefined, { reason: "typo" });
        await until("the redaction", () => seen.isRedacted());
        assert.equal(seen.getContent().body, undefined);
        const stored = await alice.client.fetchRoomEvent(roomId, regretted.event_id);
        assert.deepEqual(stored.content, {}, "the server strips what was redacted");
        const denied = bob.client.redactEvent(roomId, original);
        await refused("M_FORBIDDEN", 403, "redacting another's message without power", denied);
        step("redacted");
    }

    async ephemerals() {
        const { alice, bob, roomId } = this;
        const typing = () => bob.room(roomId).getMember(alice.userId).typing;
        await alice.client.sendTyping(roomId, true, 20_000);
        await until("Alice typing", () => typing());
        await alice.client.sendTyping(roomId, false, 0);
        await until("Alice stopped typing", () => !typing());
        step("typed");

        const last = (await alice.client.sendTextMessage(roomId, "read me")).event_id;
        const event = await bob.event(roomId, last);
        await bob.client.sendReadReceipt(event, ReceiptType.Read);
        await until("Bob's receipt at Alice", () => alice.room(roomId).getEventReadUpTo(bob.userId) === last);
        await until("nothing unread", () => bob.room(roomId).getUnreadNotificationCount("total") === 0);
        await bob.client.setRoomReadMarkersHttpRequest(roomId, last, last);
        const marker = () => bob.room(roomId).getAccountData("m.fully_read")?.getContent().event_id;
        await until("the fully read marker", () => marker() === last);
        step("read, with receipt and marker");
    }

    async history() {
        const { alice, bob, roomId } = this;
        const said = [];
        for (let n = 0; n < HISTORY; n++) said.push((await alice.client.sendTextMessage(roomId, `line ${n}`)).event_id);
        await bob.event(roomId, said.at(-1));
        // A device that comes late has only the newest page and must go back for the rest.
        const late = await this.device(await login(this.baseUrl, this.bobName));
        const room = await late.joined(roomId);
        assert(room.getLiveTimeline().getEvents().length <= 20, "the initial sync's limit is kept");
        let pages = 0;
        while (room.oldState.paginationToken !== null) {
            await late.client.scrollback(room, PAGE);
            assert(++pages < 50, "pagination ends");
        }
        const ids = room.getLiveTimeline().getEvents().map((event) => event.getId());
        assert.equal(new Set(ids).size, ids.length, "no event comes twice");
        assert.deepEqual(ids.filter((id) => said.includes(id)), said, "all lines, oldest first");
        assert.equal(room.getLiveTimeline().getEvents()[0].getType(), "m.room.create");
        assert(pages > 2, `${pages} pages`);
        late.client.stopClient();
        step(`paginated back over ${pages} pages to the beginning`);
    }

    async profiles() {
        const { alice, bob, roomId } = this;
        await alice.client.setRoomName(roomId, "Greenhouse");
        await alice.client.setRoomTopic(roomId, "Cucumbers");
        await until("the new name", () => bob.room(roomId).name === "Greenhouse");
        const topic = () => bob.room(roomId).currentState.getStateEvents("m.room.topic", "").getContent().topic;
        await until("the new topic", () => topic() === "Cucumbers");
        const denied = bob.client.setRoomName(roomId, "Mine");
        await refused("M_FORBIDDEN", 403, "naming the room without power", denied);
        await alice.client.setDisplayName("Alice in the garden");
        const name = () => bob.room(roomId).getMember(alice.userId).name;
        await until("Alice's new name", () => name() === "Alice in the garden");
        assert.equal((await bob.client.getProfileInfo(alice.userId)).displayname, "Alice in the garden");
        step("changed name, topic and display name");
    }

    async goodbye() {
        const { alice, alice2, bob, roomId } = this;
        await bob.client.leave(roomId);
        await until("Bob's leave at Alice", () => alice.room(roomId).getMember(bob.userId).membership === "leave");
        await until("the left room", () => bob.room(roomId).getMyMembership() === "leave");
        const denied = bob.client.sendTextMessage(roomId, "still here?");
        await refused("M_FORBIDDEN", 403, "sending after leaving", denied);
        step("left");

        await alice2.client.logout(false);
        const after = alice2.client.whoami();
        await refused("M_UNKNOWN_TOKEN", 401, "a token after logout", after);
        assert.equal((await alice.client.whoami()).user_id, alice.userId);
        assert.equal((await alice.client.getDevices()).devices.length, 1);
        step("logged out");
    }
}

await converse((baseUrl) => new Conversation(baseUrl).run());
