#!/usr/bin/env python3
"""Conversations over matrix-nio, each about one thing.

usage: features.py BASE_URL

Each has users and rooms of its own. A line `@restart` on the output asks whoever runs this to kill the server and to
start it again, and then to write a line to the input. Ends with status 0 and one line per step, or with the step
that failed.
"""

import asyncio
import secrets
import sys
import traceback

import aiohttp
import nio
from nio.api import ReceiptType, RoomPreset

from conversation import Device, expect, same, step

# Messages sent while the server goes away and comes back.
LINES = 30
RESTART_AFTER = 10


class World:
    """Users and rooms of one conversation."""

    def __init__(self, url: str):
        self.url = url
        self.suffix = secrets.token_hex(4)
        self.devices: list[Device] = []

    def device(self, name: str) -> Device:
        device = Device(self.url, name)
        self.devices.append(device)
        return device

    async def user(self, name: str) -> Device:
        device = self.device(f"nio-{name}-{self.suffix}")
        expect(nio.RegisterResponse, await device.client.register(device.name, "correct horse"))
        await device.sync(0)
        return device

    async def again(self, of: Device) -> Device:
        """Another device of a user."""
        device = self.device(of.user_id)
        expect(nio.LoginResponse, await device.client.login("correct horse"))
        await device.sync(0)
        return device

    async def room(self, by: Device, *others: Device, **options) -> str:
        """A room in which all of them are, and know it."""
        created = await by.client.room_create(invite=[o.user_id for o in others], **options)
        room = expect(nio.RoomCreateResponse, created).room_id
        await by.until("the own room", lambda: room in by.timeline)
        for other in others:
            expect(nio.JoinResponse, await other.client.join(room))
            await other.until("the joined room", lambda: room in other.timeline)
        return room


async def say(device: Device, room: str, body: str) -> str:
    sent = await device.client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": body})
    return expect(nio.RoomSendResponse, sent).event_id


def membership(device: Device, room: str, user: Device) -> tuple[str, str | None] | None:
    """The newest membership that came by /sync, and its reason."""
    events = [*device.state.get(room, []), *device.timeline.get(room, [])]
    latest = [e for e in events if isinstance(e, nio.RoomMemberEvent) and e.state_key == user.user_id]
    return (latest[-1].membership, latest[-1].content.get("reason")) if latest else None


async def knocking(world: World) -> None:
    alice, bob, cyd = [await world.user(name) for name in ("alice", "bob", "cyd")]
    knock_rule = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room = await world.room(alice, name="Club", preset=RoomPreset.private_chat, initial_state=[knock_rule])
    denied = await bob.client.join(room)
    same(getattr(denied, "status_code", None), "M_FORBIDDEN", "joining without an invitation")

    for guest, reason in ((bob, "I bring cake"), (cyd, "me too")):
        expect(nio.RoomKnockResponse, await guest.client.room_knock(room, reason))
        await alice.until("the knock", lambda: membership(alice, room, guest) == ("knock", reason))
        # matrix-nio does not read this part of /sync.
        status, answer = await guest.raw("GET", "/_matrix/client/v3/sync")
        same(status, 200, "sync")
        stripped = answer["rooms"]["knock"][room]["knock_state"]["events"]
        names = [e["content"]["name"] for e in stripped if e["type"] == "m.room.name"]
        same(names, ["Club"], "the room's name for who knocks")
        assert all("event_id" not in e for e in stripped), stripped
    secret = await say(alice, room, "let us see who that is")
    status, answer = await bob.raw("GET", f"/_matrix/client/v3/rooms/{room}/event/{secret}")
    same((status, answer.get("errcode")), (404, "M_NOT_FOUND"), "reading from outside")
    step("knocked")

    expect(nio.RoomInviteResponse, await alice.client.room_invite(room, bob.user_id))
    await bob.until("the invitation", lambda: room in bob.invited)
    expect(nio.JoinResponse, await bob.client.join(room))
    await alice.until("Bob's join", lambda: (membership(alice, room, bob) or [None])[0] == "join")
    hello = await say(bob, room, "here is the cake")
    await alice.event(room, hello)

    expect(nio.RoomKickResponse, await alice.client.room_kick(room, cyd.user_id, "no more chairs"))
    await bob.until("that Cyd is sent away", lambda: membership(bob, room, cyd) == ("leave", "no more chairs"))
    status, answer = await cyd.raw("GET", "/_matrix/client/v3/sync")
    assert room not in answer.get("rooms", {}).get("knock", {}), "the knock is over"
    denied = await cyd.client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": "hello?"})
    same(getattr(denied, "status_code", None), "M_FORBIDDEN", "sending from outside")
    step("let one in, sent one away")


async def read_states(world: World) -> None:
    """One user reads on one device and privately; the other device must end in the same state, others see nothing."""
    alice, bob = await world.user("alice"), await world.user("bob")
    phone = await world.again(alice)
    room = await world.room(bob, alice)
    await phone.until("the room", lambda: room in phone.timeline)
    since = phone.client.next_batch

    said = [await say(bob, room, f"line {n}") for n in range(5)]
    await alice.event(room, said[-1])
    await alice.until("five unread", lambda: alice.unread.get(room) == 5)
    for number, unread in ((1, 3), (4, 0)):
        marked = await alice.client.update_receipt_marker(room, said[number], ReceiptType.read_private)
        expect(nio.UpdateReceiptMarkerResponse, marked)
        await alice.until(f"{unread} unread", lambda: alice.unread.get(room) == unread)

    # The phone was off: all of it comes at once, and each line once.
    same(phone.client.next_batch, since, "the phone slept")
    await phone.event(room, said[-1])
    await phone.until("nothing unread on the phone", lambda: phone.unread.get(room) == 0)
    got = [e.event_id for e in phone.timeline[room] if e.event_id in said]
    same(got, said, "the lines on the phone")

    def receipts(device: Device, event: str) -> list:
        events = [e for e in device.ephemeral.get(room, []) if isinstance(e, nio.ReceiptEvent)]
        return [r for e in events for r in e.receipts if r.user_id == alice.user_id and r.event_id == event]

    await phone.until("the private receipt", lambda: receipts(phone, said[4]))
    # What comes after shows that it is not merely late.
    marker = await say(alice, room, "read it all")
    await bob.event(room, marker)
    same([receipts(bob, event) for event in said], [[]] * 5, "private receipts at Bob")

    expect(nio.UpdateReceiptMarkerResponse, await phone.client.update_receipt_marker(room, said[3], ReceiptType.read))
    await bob.until("a public receipt", lambda: receipts(bob, said[3]))
    status, answer = await alice.raw("GET", "/_matrix/client/v3/sync")
    counts = answer["rooms"]["join"][room]["unread_notifications"]
    same(status, 200, "sync")
    same(counts["notification_count"], 0, "an older receipt takes nothing back")
    step("read on one device, saw it on the other")


async def upgrade(world: World) -> None:
    """A room gets a successor: who was in finds the way, and what matters comes along."""
    alice, bob = await world.user("alice"), await world.user("bob")
    old = await world.room(alice, bob, name="Shed", topic="Tools", preset=RoomPreset.private_chat, room_version="10")
    status, answer = await alice.raw("POST", f"/_matrix/client/v3/rooms/{old}/upgrade", {"new_version": "11"})
    same(status, 200, f"upgrading: {answer}")
    new = answer["replacement_room"]

    def tombstone() -> list:
        return [e for e in bob.timeline[old] if isinstance(e, nio.RoomUpgradeEvent)]

    same((await bob.until("the tombstone", tombstone))[0].replacement_room, new, "where the tombstone points")
    denied = await bob.client.room_send(old, "m.room.message", {"msgtype": "m.text", "body": "anybody?"})
    same(getattr(denied, "status_code", None), "M_FORBIDDEN", "talking in the old room")
    expect(nio.RoomInviteResponse, await alice.client.room_invite(new, bob.user_id))
    expect(nio.JoinResponse, await bob.client.join(new))
    await bob.until("the new room", lambda: new in bob.timeline)
    room = bob.client.rooms[new]
    same((room.name, room.topic, room.room_version), ("Shed", "Tools", "11"), "what came along")
    creation = [e for e in [*bob.state[new], *bob.timeline[new]] if isinstance(e, nio.RoomCreateEvent)]
    same(creation[0].source["content"]["predecessor"]["room_id"], old, "where it came from")
    hello = await say(bob, new, "all here")
    await alice.event(new, hello)
    step("moved to an upgraded room")


async def threads(world: World) -> None:
    """A thread with an edit and a redaction in it, and what whoever asks for its first message is told with it."""
    alice, bob = await world.user("alice"), await world.user("bob")
    room = await world.room(alice, bob)
    question = await say(alice, room, "what is for dinner?")
    await bob.event(room, question)

    async def relate(rel_type: str, to: str, body: str, **more) -> str:
        relation = {"rel_type": rel_type, "event_id": to}
        content = {"msgtype": "m.text", "body": body, "m.relates_to": relation, **more}
        return expect(nio.RoomSendResponse, await bob.client.room_send(room, "m.room.message", content)).event_id

    ideas = [await relate("m.thread", question, f"idea {n}") for n in range(3)]
    new = {"msgtype": "m.text", "body": "soup"}
    edit = await relate("m.replace", ideas[2], "* soup", **{"m.new_content": new})
    await alice.event(room, edit)
    expect(nio.RoomRedactResponse, await bob.client.room_redact(room, ideas[0]))

    async def thread(device: Device) -> dict:
        status, answer = await device.raw("GET", f"/_matrix/client/v3/rooms/{room}/event/{question}")
        same(status, 200, "reading the first message")
        return answer["unsigned"]["m.relations"]["m.thread"]

    told = await thread(alice)
    same((told["count"], told["latest_event"]["event_id"]), (2, ideas[2]), "the thread")
    same(told["latest_event"]["content"]["body"], "idea 2", "what was said first stays")
    edited = told["latest_event"]["unsigned"]["m.relations"]["m.replace"]
    same((edited["event_id"], edited["content"]["m.new_content"]), (edit, new), "the edit in the thread")
    took_part = [(await thread(device))["current_user_participated"] for device in (alice, bob)]
    same(took_part, [True, True], "who has begun or answered")
    status, answer = await alice.raw("GET", f"/_matrix/client/v1/rooms/{room}/threads")
    same((status, [e["event_id"] for e in answer["chunk"]]), (200, [question]), "the list of threads")
    step("talked in a thread, edited and took back")


async def ignoring(world: World) -> None:
    """Who is ignored is not heard, by that user only and for as long as that lasts."""
    alice, bob, cyd = [await world.user(name) for name in ("alice", "bob", "cyd")]
    room = await world.room(alice, bob, cyd)

    async def ignore(*users: Device) -> None:
        path = f"/_matrix/client/v3/user/{alice.user_id}/account_data/m.ignored_user_list"
        status, answer = await alice.raw("PUT", path, {"ignored_users": {user.user_id: {} for user in users}})
        same(status, 200, f"ignoring: {answer}")

    await ignore(bob)
    unheard = await say(bob, room, "can you hear me?")
    elsewhere = await world.room(bob)
    expect(nio.RoomInviteResponse, await bob.client.room_invite(elsewhere, alice.user_id))
    await cyd.event(room, unheard)
    # What comes after shows that it is not merely late.
    await alice.event(room, await say(cyd, room, "hello"))
    assert all(e.event_id != unheard for e in alice.timeline[room]), "an ignored user was heard"
    assert elsewhere not in alice.invited, "an ignored user's invitation came"

    await ignore()
    await alice.event(room, await say(bob, room, "and now?"))
    status, answer = await alice.raw("GET", f"/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=50")
    same((status, unheard in [e["event_id"] for e in answer["chunk"]]), (200, True), "what was said meanwhile")
    step("ignored somebody for a while")


async def restart(world: World) -> None:
    """The server is killed under a waiting /sync while somebody talks: nothing is lost, nothing comes twice."""
    alice, bob = await world.user("alice"), await world.user("bob")
    room = await world.room(alice, bob)
    answered = interrupted = 0

    async def listen(last: str) -> None:
        nonlocal answered, interrupted
        while not any(e.event_id == last for e in bob.timeline[room]):
            try:
                await bob.sync(30_000)
                answered += 1
            except (AssertionError, aiohttp.ClientError, TimeoutError):
                interrupted += 1
                await asyncio.sleep(0.05)

    async def quiet() -> bool:
        """Whether a poll waited for two seconds. Presence may be told before that."""
        before = answered
        await asyncio.sleep(2)
        return answered == before

    async def insist(n: int) -> str:
        """Sends with one transaction id until an answer comes."""
        body = {"msgtype": "m.text", "body": f"line {n}"}
        while True:
            try:
                sent = await alice.client.room_send(room, "m.room.message", body, tx_id=f"line-{n}")
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.05)
                continue
            return expect(nio.RoomSendResponse, sent).event_id

    # A poll that waits while nothing happens is cut off in the middle. What asks again, the library or this listener,
    # depends on how soon the server is back.
    ears = asyncio.create_task(listen("$never"))
    for _ in range(10):
        if await quiet():
            break
    else:
        raise AssertionError("no poll waits")
    await restarted()
    said = [await insist(n) for n in range(RESTART_AFTER)]
    away = asyncio.create_task(restarted())
    said += [await insist(n) for n in range(RESTART_AFTER, LINES)]
    await away
    # What is sent with an old id once more is the old event.
    same(await insist(RESTART_AFTER), said[RESTART_AFTER], "the same transaction id after a restart")
    ears.cancel()
    await asyncio.gather(ears, return_exceptions=True)
    await listen(said[-1])
    got = [e.event_id for e in bob.timeline[room] if isinstance(e, nio.RoomMessageText)]
    same(got, said, "lines through two restarts")
    same(len(set(said)), LINES, "different events")
    step(f"talked through restarts, with {interrupted} polls cut off")


async def restarted() -> None:
    """Has the server killed and started again."""
    print("@restart", flush=True)
    line = await asyncio.to_thread(sys.stdin.readline)
    assert line, "whoever runs this restarts the server"


async def run(url: str) -> None:
    for conversation in (knocking, read_states, upgrade, threads, ignoring, restart):
        world = World(url)
        try:
            await conversation(world)
        finally:
            for device in world.devices:
                await device.client.close()


def main() -> int:
    try:
        asyncio.run(asyncio.wait_for(run(sys.argv[1]), timeout=180))
    except (AssertionError, TimeoutError):
        traceback.print_exc()
        return 1
    print("nio: every conversation was seen by all sides")
    return 0


if __name__ == "__main__":
    sys.exit(main())
