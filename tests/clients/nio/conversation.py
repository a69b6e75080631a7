#!/usr/bin/env python3
"""A conversation of two people over matrix-nio.

usage: conversation.py BASE_URL

Alice has two devices, Bob one. Every step is checked from the side that must see it, through /sync as a client
does, not by asking the server again. Ends with status 0 and one line per step, or with the step that failed.
"""

import asyncio
import json
import secrets
import sys
import time
import traceback
from collections.abc import Callable

import nio
from nio.api import MessageDirection, ReceiptType, RoomPreset
from nio.responses import RegisterResponse

# A step that has not been seen after this many seconds has failed.
PATIENCE_S = 20
PAGE = 10
HISTORY = 35


class Device:
    """One logged-in device and everything that its /sync has brought so far."""

    def __init__(self, url: str, name: str):
        self.name = name
        # A retry would hide a request that the server dropped.
        config = nio.AsyncClientConfig(max_timeouts=1, max_limit_exceeded=0, encryption_enabled=False)
        self.client = nio.AsyncClient(url, name, config=config)
        self.timeline: dict[str, list] = {}
        self.state: dict[str, list] = {}
        self.ephemeral: dict[str, list] = {}
        self.room_data: dict[str, list] = {}
        self.account_data: list = []
        self.invited: dict[str, list] = {}
        self.left: set[str] = set()
        self.prev_batch: dict[str, str] = {}
        self.unread: dict[str, int] = {}

    @property
    def user_id(self) -> str:
        return self.client.user_id

    async def sync(self, timeout_ms: int) -> nio.SyncResponse:
        response = expect(nio.SyncResponse, await self.client.sync(timeout=timeout_ms))
        for room, info in response.rooms.join.items():
            self.left.discard(room)
            self.keep(room, info)
            self.ephemeral.setdefault(room, []).extend(info.ephemeral)
            self.room_data.setdefault(room, []).extend(info.account_data)
            if info.unread_notifications and info.unread_notifications.notification_count is not None:
                self.unread[room] = info.unread_notifications.notification_count
        for room, info in response.rooms.invite.items():
            self.invited[room] = info.invite_state
        for room, info in response.rooms.leave.items():
            self.left.add(room)
            self.keep(room, info)
        self.account_data.extend(response.account_data_events)
        return response

    def keep(self, room: str, info) -> None:
        self.timeline.setdefault(room, []).extend(info.timeline.events)
        self.state.setdefault(room, []).extend(info.state)
        if info.timeline.prev_batch:
            self.prev_batch.setdefault(room, info.timeline.prev_batch)

    async def until(self, what: str, seen: Callable[[], object]):
        """Syncs until `seen` gives something, which is the answer."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := seen()):
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} did not see in {PATIENCE_S} s: {what}")
            await self.sync(3000)
        return found

    async def event(self, room: str, event_id: str):
        """The event with this ID, as soon as the timeline brings it."""
        return await self.until(
            f"event {event_id}", lambda: next((e for e in self.timeline.get(room, []) if e.event_id == event_id), None)
        )

    async def raw(self, method: str, path: str, body: dict | None = None) -> tuple[int, dict]:
        """A request for which matrix-nio has no method."""
        headers = {"Content-Type": "application/json"}
        if self.client.access_token:
            headers["Authorization"] = f"Bearer {self.client.access_token}"
        data = None if body is None else json.dumps(body)
        response = await self.client.send(method, path, data, headers)
        return response.status, await response.json()


def expect(kind: type, response):
    if not isinstance(response, kind):
        raise AssertionError(f"wanted {kind.__name__}, got {response}")
    return response


def same(got, wanted, what: str) -> None:
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


def step(text: str) -> None:
    print(f"nio: {text}", flush=True)


class Conversation:
    def __init__(self, url: str):
        self.url = url
        self.suffix = secrets.token_hex(4)
        self.devices: list[Device] = []

    def device(self, user: str) -> Device:
        device = Device(self.url, user)
        self.devices.append(device)
        return device

    async def run(self) -> None:
        try:
            await self.accounts()
            await self.rooms()
            await self.messages()
            await self.ephemerals()
            await self.history()
            await self.profiles()
            await self.goodbye()
        finally:
            for device in self.devices:
                await device.client.close()

    async def register(self, name: str, password: str) -> Device:
        """Asks for the flows first, as the specification's user-interactive authentication wants it."""
        device = self.device(name)
        wanted = {"username": name, "password": password}
        status, flows = await device.raw("POST", "/_matrix/client/v3/register", wanted)
        same(status, 401, "registering without authentication")
        assert {"stages": ["m.login.dummy"]} in flows["flows"], flows
        made = await device.client.register(name, password, device_name="first device", session_token=flows["session"])
        await self.registered(device, made)
        return device

    async def registered(self, device: Device, made) -> None:
        expect(RegisterResponse, made)
        who = expect(nio.WhoamiResponse, await device.client.whoami())
        same(who.user_id, made.user_id, "whoami after registering")
        same(who.device_id, made.device_id, "device of whoami")

    async def accounts(self) -> None:
        self.alice = await self.register(f"nio-alice-{self.suffix}", "correct horse 1")
        # matrix-nio on its own goes straight to m.login.dummy, without a session.
        self.bob = self.device(f"nio-bob-{self.suffix}")
        await self.registered(self.bob, await self.bob.client.register(self.bob.name, "correct horse 2"))
        taken = await self.device("x").client.register(self.alice.name, "correct horse 3")
        same(getattr(taken, "status_code", None), "M_USER_IN_USE", "registering a taken name")
        step("registered Alice and Bob")

        self.alice2 = self.device(self.alice.user_id)
        login = expect(nio.LoginResponse, await self.alice2.client.login("correct horse 1", device_name="second device"))
        same(login.user_id, self.alice.user_id, "user of the second login")
        wrong = await self.device(self.alice.user_id).client.login("wrong horse")
        same(getattr(wrong, "status_code", None), "M_FORBIDDEN", "login with a wrong password")
        listed = expect(nio.DevicesResponse, await self.alice.client.devices())
        names = sorted(d.display_name for d in listed.devices)
        same(names, ["first device", "second device"], "Alice's devices")
        expect(nio.ProfileSetDisplayNameResponse, await self.alice.client.set_displayname("Alice"))
        for device in (self.alice, self.alice2, self.bob):
            await device.sync(0)
        step("logged in on a second device")

    async def rooms(self) -> None:
        created = await self.alice.client.room_create(
            name="Garden", topic="Tomatoes", preset=RoomPreset.private_chat, invite=[self.bob.user_id]
        )
        self.room = room = expect(nio.RoomCreateResponse, created).room_id
        await self.bob.until("the invite", lambda: room in self.bob.invited)
        inviters = {e.sender for e in self.bob.invited[room] if isinstance(e, nio.InviteMemberEvent)}
        assert self.alice.user_id in inviters, f"invite_state shows who invited: {inviters}"
        names = [e.name for e in self.bob.invited[room] if isinstance(e, nio.InviteNameEvent)]
        same(names, ["Garden"], "room name in invite_state")
        expect(nio.JoinResponse, await self.bob.client.join(room))
        await self.bob.until("the joined room", lambda: room in self.bob.timeline)
        await self.alice.until("Bob's join", lambda: self.membership(self.alice, room, self.bob.user_id) == "join")
        await self.alice2.until("the room on the second device", lambda: room in self.alice2.timeline)
        same(self.bob.client.rooms[room].name, "Garden", "room name for Bob")
        same(self.bob.client.rooms[room].topic, "Tomatoes", "topic for Bob")
        same(sorted(self.bob.client.rooms[room].users), sorted([self.alice.user_id, self.bob.user_id]), "members")
        step("created a room, invited and joined")

        direct = await self.alice.client.room_create(
            is_direct=True, preset=RoomPreset.trusted_private_chat, invite=[self.bob.user_id]
        )
        self.dm = dm = expect(nio.RoomCreateResponse, direct).room_id
        path = f"/_matrix/client/v3/user/{self.alice.user_id}/account_data/m.direct"
        status, _ = await self.alice.raw("PUT", path, {self.bob.user_id: [dm]})
        same(status, 200, "PUT m.direct")
        status, stored = await self.alice.raw("GET", path)
        same((status, stored), (200, {self.bob.user_id: [dm]}), "GET m.direct")
        await self.alice2.until(
            "m.direct on the second device",
            lambda: [e for e in self.alice2.account_data if getattr(e, "type", "") == "m.direct"],
        )
        await self.bob.until("the invite to the direct chat", lambda: dm in self.bob.invited)
        own = [e for e in self.bob.invited[dm] if isinstance(e, nio.InviteMemberEvent) and e.state_key == self.bob.user_id]
        same([e.content.get("is_direct") for e in own], [True], "is_direct in the invite")
        expect(nio.JoinResponse, await self.bob.client.join(dm))
        sent = await self.bob.client.room_send(dm, "m.room.message", {"msgtype": "m.text", "body": "only us"})
        event = await self.alice.event(dm, expect(nio.RoomSendResponse, sent).event_id)
        same(event.body, "only us", "message in the direct chat")
        step("opened a direct chat")

    @staticmethod
    def membership(device: Device, room: str, user: str) -> str | None:
        events = [*device.state.get(room, []), *device.timeline.get(room, [])]
        latest = [e for e in events if isinstance(e, nio.RoomMemberEvent) and e.state_key == user]
        return latest[-1].membership if latest else None

    async def say(self, device: Device, content: dict, kind: str = "m.room.message") -> str:
        sent = await device.client.room_send(self.room, kind, content)
        return expect(nio.RoomSendResponse, sent).event_id

    async def messages(self) -> None:
        room = self.room
        original = await self.say(self.alice, {"msgtype": "m.text", "body": "helo"})
        for device in (self.alice, self.alice2, self.bob):
            event = await device.event(room, original)
            same((event.body, event.sender), ("helo", self.alice.user_id), "message")
        own = await self.alice.event(room, original)
        assert own.source.get("unsigned", {}).get("transaction_id"), "the sending device sees its transaction id"
        other = await self.bob.event(room, original)
        assert "transaction_id" not in other.source.get("unsigned", {}), "nobody else sees it"
        await self.bob.until("an unread message", lambda: self.bob.unread.get(room, 0) >= 1)

        txn = f"again-{self.suffix}"
        body = {"msgtype": "m.text", "body": "once"}
        first = expect(nio.RoomSendResponse, await self.alice.client.room_send(room, "m.room.message", body, tx_id=txn))
        again = expect(nio.RoomSendResponse, await self.alice.client.room_send(room, "m.room.message", body, tx_id=txn))
        same(again.event_id, first.event_id, "same transaction id, same event")

        edit = await self.say(
            self.alice,
            {
                "msgtype": "m.text",
                "body": "* hello",
                "m.new_content": {"msgtype": "m.text", "body": "hello"},
                "m.relates_to": {"rel_type": "m.replace", "event_id": original},
            },
        )
        event = await self.bob.event(room, edit)
        same(event.source["content"]["m.new_content"]["body"], "hello", "edited body")
        same(event.source["content"]["m.relates_to"]["event_id"], original, "edited event")
        reaction = await self.say(
            self.bob,
            {"m.relates_to": {"rel_type": "m.annotation", "event_id": original, "key": "👍"}},
            kind="m.reaction",
        )
        event = await self.alice.event(room, reaction)
        assert isinstance(event, nio.ReactionEvent), event
        same((event.key, event.reacts_to), ("👍", original), "reaction")
        step("sent, edited, reacted")

        regretted = await self.say(self.bob, {"msgtype": "m.text", "body": "forget this"})
        await self.alice.event(room, regretted)
        redacted = await self.bob.client.room_redact(room, regretted, reason="typo")
        redaction = expect(nio.RoomRedactResponse, redacted).event_id
        event = await self.alice.event(room, redaction)
        assert isinstance(event, nio.RedactionEvent), event
        same((event.redacts, event.reason), (regretted, "typo"), "redaction")
        fetched = expect(nio.RoomGetEventResponse, await self.alice.client.room_get_event(room, regretted)).event
        assert isinstance(fetched, nio.RedactedEvent), f"the redacted event is stripped: {fetched}"
        denied = await self.bob.client.room_redact(room, original)
        same(getattr(denied, "status_code", None), "M_FORBIDDEN", "redacting another's message without power")
        step("redacted")

    async def ephemerals(self) -> None:
        room = self.room
        expect(nio.RoomTypingResponse, await self.alice.client.room_typing(room, True, timeout=20_000))

        def typing() -> list | None:
            notices = [e for e in self.bob.ephemeral.get(room, []) if isinstance(e, nio.TypingNoticeEvent)]
            return notices[-1].users if notices else None

        await self.bob.until("Alice typing", lambda: typing() == [self.alice.user_id])
        expect(nio.RoomTypingResponse, await self.alice.client.room_typing(room, False))
        await self.bob.until("Alice stopped typing", lambda: typing() == [])
        step("typed")

        last = await self.say(self.alice, {"msgtype": "m.text", "body": "read me"})
        await self.bob.event(room, last)
        marked = await self.bob.client.update_receipt_marker(room, last, ReceiptType.read)
        expect(nio.UpdateReceiptMarkerResponse, marked)

        def receipts() -> list:
            events = [e for e in self.alice.ephemeral.get(room, []) if isinstance(e, nio.ReceiptEvent)]
            return [r for e in events for r in e.receipts if r.event_id == last and r.user_id == self.bob.user_id]

        await self.alice.until("Bob's receipt", receipts)
        await self.bob.until("nothing unread", lambda: self.bob.unread.get(room) == 0)
        expect(nio.RoomReadMarkersResponse, await self.bob.client.room_read_markers(room, last, last))

        def fully_read() -> bool:
            events = [e for e in self.bob.room_data.get(room, []) if isinstance(e, nio.FullyReadEvent)]
            return bool(events) and events[-1].event_id == last

        await self.bob.until("the fully read marker", fully_read)
        step("read, with receipt and marker")

    async def history(self) -> None:
        room = self.room
        said = [await self.say(self.alice, {"msgtype": "m.text", "body": f"line {n}"}) for n in range(HISTORY)]
        await self.bob.event(room, said[-1])
        start, found, pages = None, [], 0
        while True:
            page = await self.bob.client.room_messages(
                room, start=start, direction=MessageDirection.back, limit=PAGE
            )
            page = expect(nio.RoomMessagesResponse, page)
            assert len(page.chunk) <= PAGE, f"a page holds at most {PAGE} events"
            found.extend(page.chunk)
            pages += 1
            assert pages < 50, "pagination ends"
            if not page.end or not page.chunk:
                break
            start = page.end
        ids = [e.event_id for e in found]
        same(len(ids), len(set(ids)), "no event comes twice")
        same([i for i in ids if i in set(said)], said[::-1], "all lines, newest first")
        assert isinstance(found[-1], nio.RoomCreateEvent), f"the room's beginning is the create event: {found[-1]}"
        assert pages > 3, pages
        step(f"paginated back over {pages} pages to the beginning")

    async def profiles(self) -> None:
        room = self.room
        for kind, content, field in (
            ("m.room.name", {"name": "Greenhouse"}, "name"),
            ("m.room.topic", {"topic": "Cucumbers"}, "topic"),
        ):
            put = await self.alice.client.room_put_state(room, kind, content)
            await self.bob.event(room, expect(nio.RoomPutStateResponse, put).event_id)
            same(getattr(self.bob.client.rooms[room], field), content[field], field)
            stored = expect(nio.RoomGetStateEventResponse, await self.bob.client.room_get_state_event(room, kind))
            same(stored.content[field], content[field], f"{kind} by GET")
        denied = await self.bob.client.room_put_state(room, "m.room.name", {"name": "Mine"})
        same(getattr(denied, "status_code", None), "M_FORBIDDEN", "naming the room without power")
        expect(nio.ProfileSetDisplayNameResponse, await self.alice.client.set_displayname("Alice in the garden"))
        await self.bob.until(
            "Alice's new name", lambda: self.bob.client.rooms[room].user_name(self.alice.user_id) == "Alice in the garden"
        )
        profile = expect(nio.ProfileGetResponse, await self.bob.client.get_profile(self.alice.user_id))
        same(profile.displayname, "Alice in the garden", "profile")
        step("changed name, topic and display name")

    async def goodbye(self) -> None:
        room = self.room
        expect(nio.RoomLeaveResponse, await self.bob.client.room_leave(room))
        await self.alice.until("Bob's leave", lambda: self.membership(self.alice, room, self.bob.user_id) == "leave")
        await self.bob.until("the left room", lambda: room in self.bob.left)
        denied = await self.bob.client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": "still here?"})
        same(getattr(denied, "status_code", None), "M_FORBIDDEN", "sending after leaving")
        step("left")

        token = self.alice2.client.access_token
        expect(nio.LogoutResponse, await self.alice2.client.logout())
        self.alice2.client.access_token = token
        status, body = await self.alice2.raw("GET", "/_matrix/client/v3/account/whoami")
        same((status, body.get("errcode")), (401, "M_UNKNOWN_TOKEN"), "a token after logout")
        expect(nio.WhoamiResponse, await self.alice.client.whoami())
        listed = expect(nio.DevicesResponse, await self.alice.client.devices())
        same(len(listed.devices), 1, "devices after logout")
        step("logged out")


def main() -> int:
    try:
        asyncio.run(asyncio.wait_for(Conversation(sys.argv[1]).run(), timeout=180))
    except (AssertionError, TimeoutError):
        traceback.print_exc()
        return 1
    print("nio: the whole conversation was seen by both sides")
    return 0


if __name__ == "__main__":
    sys.exit(main())
