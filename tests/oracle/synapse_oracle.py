#!/usr/bin/env python3
# SPDX-License-Identifier: AGPL-3.0-only
#
# This driver imports matrix-synapse, which is under the AGPL-3.0, so this one file is under the AGPL-3.0 too. It runs as
# a separate process of the test suite only and is no part of the product: nothing links it, ships it or needs it to run.
"""Answers questions about events as matrix-synapse does: JSON lines in, JSON lines out.

Written for matrix-synapse 1.163.2 on CPython 3.11. Each line is one question: `op`, `id`, and what the function
`op_<op>` below reads. Each answer repeats `id`; what Synapse raises is in `err`.
"""
import base64
import hashlib
import json
import logging
import sys

logging.disable(logging.CRITICAL)
from canonicaljson import encode_canonical_json
from synapse import event_auth
from synapse.api.room_versions import KNOWN_ROOM_VERSIONS, StateResolutionVersions
from synapse.events import make_event_from_dict
from synapse.events.utils import prune_event, validate_canonicaljson
from synapse.crypto.event_signing import compute_content_hash
from synapse.federation.federation_base import event_from_pdu_json
from synapse.state import v1, v2
from synapse.storage.databases.main.event_federation import StateDifference

def run(coro):
    """drive a coroutine that never really suspends"""
    try:
        while True:
            coro.send(None)
    except StopIteration as e:
        return e.value

class Clock:
    async def sleep(self, _): return None

class Store:
    """plays synapse.state.v2.StateResolutionStore and event_auth._EventSourceStore"""
    def __init__(self, events): self.ev = events
    async def get_events(self, ids, *a, allow_rejected=False, **kw):
        return {i: self.ev[i] for i in ids if i in self.ev}
    def chain(self, ids):
        seen, todo = set(), list(ids)
        while todo:
            i = todo.pop()
            if i in seen or i not in self.ev: continue
            seen.add(i); todo += list(self.ev[i].auth_event_ids())
        return seen
    async def get_auth_chain_difference(self, room_id, state_sets, conflicted, _extra):
        chains = [self.chain(s) for s in state_sets]
        diff = set.union(*chains) - set.intersection(*chains)
        sub = None
        if conflicted is not None:            # v2.1: every event on an auth path between
            back = {c: self.chain([c]) for c in conflicted}      # two conflicted events
            sub = set(conflicted)
            allback = set().union(*back.values()) if back else set()
            for e in allback:
                if self.chain([e]) & conflicted:
                    sub.add(e)
        return StateDifference(auth_difference=diff, conflicted_subgraph=sub)

def load(rv, pdus, rejected=()):
    out = {}
    for eid, p in pdus.items():
        e = make_event_from_dict(p, rv, rejected_reason="oracle" if eid in rejected else None)
        if e.event_id != eid:
            raise ValueError(f"event id mismatch {eid} != {e.event_id}")
        out[eid] = e
    return out

def err(e): return f"{type(e).__name__}: {e}"[:300]

def no_constant(name): raise ValueError(f"{name} is not JSON")

def op_canonical(r):
    """text, strict -> ok: the canonical form of the JSON in `text`"""
    obj = json.loads(r["text"], parse_constant=no_constant)
    if not isinstance(obj, dict): raise ValueError("no object")
    if r["strict"]: validate_canonicaljson(obj)
    return {"ok": encode_canonical_json(obj).decode()}

def op_event_id(r):
    """room_version, pdu -> event_id, content_hash, redacted"""
    rv = KNOWN_ROOM_VERSIONS[r["room_version"]]
    e = event_from_pdu_json(r["pdu"], rv)
    _, h = compute_content_hash(r["pdu"], hashlib.sha256)
    redacted = prune_event(e).get_pdu_json()
    redacted.pop("unsigned", None)
    return {"event_id": e.event_id,
            "content_hash": base64.b64encode(h).decode().rstrip("="),
            "redacted": encode_canonical_json(redacted).decode()}

def op_auth(r):
    rv = KNOWN_ROOM_VERSIONS[r["room_version"]]
    evs = load(rv, r["events"], r.get("rejected", ()))
    e = make_event_from_dict(r["pdu"], rv)
    res = {}
    for name, f in (
        ("format", lambda: event_auth.validate_event_for_room_version(e)),
        ("independent", lambda: run(event_auth.check_state_independent_auth_rules(Store(evs), e))),
        ("dependent", lambda: event_auth.check_state_dependent_auth_rules(e, [evs[i] for i in r["state"]])),
    ):
        try: f(); res[name] = None
        except Exception as x: res[name] = err(x)
    try: res["auth_types"] = sorted(map(list, event_auth.auth_types_for_event(rv, e)))
    except Exception as x: res["auth_types"] = err(x)
    return res

def op_resolve(r):
    rv = KNOWN_ROOM_VERSIONS[r["room_version"]]
    evs = load(rv, r["events"], r.get("rejected", ()))
    sets = [{(evs[i].type, evs[i].state_key): i for i in s} for s in r["state_sets"]]
    st = Store(evs)
    if rv.state_res == StateResolutionVersions.V1:
        out = run(v1.resolve_events_with_store(r["room_id"], rv, sets, dict(evs), st.get_events))
    else:                                   # V2 and V2_1
        out = run(v2.resolve_events_with_store(Clock(), r["room_id"], rv, sets, None, st))
    return {"state": {f"{t}\0{k}": i for (t, k), i in sorted(out.items())}}

OPS = {k[3:]: v for k, v in globals().items() if k.startswith("op_")}
if __name__ == "__main__":
    for line in sys.stdin:
        r = json.loads(line)
        try: out = OPS[r["op"]](r)
        except Exception as x: out = {"err": err(x)}
        print(json.dumps({"id": r.get("id"), **out}), flush=True)
