"""What python's etcd3 sees of a server; the lines are compared with those about another server."""

import io
import sys
import time

import etcd3

port = int(sys.argv[1])
client = etcd3.client(host="127.0.0.1", port=port, timeout=30)
base = client.put("base", "0").header.revision


def say(what, *told):
    print(what, *told, flush=True)


def row(value, about):
    if about is None:
        return None
    created, changed = about.create_revision - base, about.mod_revision - base
    return about.key, value, created, changed, about.version, about.lease_id


def refused(what, call):
    try:
        say(what, "done", call())
    except Exception as error:  # Every way to fail has to be the same way.
        say(what, type(error).__name__, error.details() if hasattr(error, "details") else str(error))


# Keys.
for n in range(5):
    say("put", client.put(f"k/{n}", f"v{n}").header.revision - base)
say("get", row(*client.get("k/1")))
say("missing", client.get("nothing"))
say("prefix", [row(*found) for found in client.get_prefix("k/")])
say("descending", [row(*found)[0] for found in client.get_prefix("k/", sort_order="descend", sort_target="value")])
say("keys only", [row(*found) for found in client.get_prefix("k/", keys_only=True)])
say("range", [row(*found)[0] for found in client.get_range("k/1", "k/4")])
say("all", len(list(client.get_all())))
say("previous", client.put("k/1", "again", prev_kv=True).prev_kv.value)
say("delete", client.delete("k/4"), client.delete("k/4"))
say("delete prefix", client.delete_prefix("k/3").deleted)
say("replace", client.replace("k/2", "v2", "w2"), client.replace("k/2", "v2", "x2"))
say("if missing", client.put_if_not_exists("k/new", "1"), client.put_if_not_exists("k/new", "2"))
refused("empty key", lambda: client.put("", "x"))
refused("too large", lambda: client.put("large", "x" * (1600 * 1024)))

# Transactions.
t = client.transactions
say(
    "transaction",
    client.transaction(
        compare=[t.value("k/2") == "w2", t.version("k/2") > 1, t.create("nothing") == 0],
        success=[t.put("k/t", "then"), t.get("k/t"), t.delete("k/new")],
        failure=[t.put("k/t", "else")],
    )[0],
)
say("other branch", client.transaction(compare=[t.mod("k/2") == 1], success=[], failure=[t.get("k/2")])[0])
nested = t.txn(compare=[t.version("k/t") == 1], success=[t.put("k/u", "nested")], failure=[])
say("nested", client.transaction(compare=[], success=[nested, t.get("k/u")], failure=[])[0])
refused("twice", lambda: client.transaction(compare=[], success=[t.put("a", "1"), t.put("a", "2")], failure=[]))

# Watches.
events, cancel = client.watch_prefix("w/", prev_kv=True)
client.put("w/a", "1")
client.put("w/a", "2")
client.delete("w/a")
seen = []
for event in events:
    seen.append((type(event).__name__, event.key, event.value, event.mod_revision - base, event.prev_value))
    if len(seen) == 3:
        cancel()
        break
say("watch", seen)
events, cancel = client.watch("w/a", start_revision=base)
past = [next(events) for _ in range(3)]
cancel()
say("past", [(type(event).__name__, event.mod_revision - base) for event in past])
refused("nothing happens", lambda: client.watch_once("w/quiet", timeout=1))

# Leases.
lease = client.lease(600, lease_id=7)
say("lease", lease.id, lease.granted_ttl, lease.remaining_ttl > 590, lease.keys)
client.put("l/a", "1", lease=lease)
client.put("l/b", "1", lease=lease)
say("leased", sorted(lease.keys), row(*client.get("l/a")))
say("refreshed", [answer.TTL for answer in lease.refresh()])
lease.revoke()
say("revoked", client.get("l/a"), list(client.get_prefix("l/")))
refused("revoked twice", lambda: client.revoke_lease(7))
refused("unknown lease", lambda: client.put("l/c", "1", lease=12345))
short = client.lease(1)
client.put("l/short", "1", lease=short)
until = time.monotonic() + 30
while client.get("l/short")[0] is not None and time.monotonic() < until:
    time.sleep(0.2)
say("ran out", client.get("l/short")[0], client.get_lease_info(short.id).TTL)

# Locks.
with client.lock("mine", ttl=60) as lock:
    say("locked", lock.is_acquired())
    say("taken", client.lock("mine", ttl=60).acquire(timeout=1))
say("free again", client.lock("mine", ttl=60).acquire(timeout=5))

# The past and its end.
first = client.put("past", "1").header.revision
client.put("past", "2")
client.compact(first + 1)
refused("compacted twice", lambda: client.compact(first))
refused("the future", lambda: client.compact(first + 1_000_000))
events, cancel = client.watch("past", start_revision=first)
refused("compacted watch", lambda: next(iter(events)))

# Upkeep.
say("members", {member.client_urls != [] for member in client.members})
status = client.status()
say("status", status.version != "", status.db_size > 0, status.leader is not None, status.raft_index > 0)
say("alarms", list(client.list_alarms()))
say("alarm", [alarm.alarm_type for alarm in client.create_alarm()])
refused("no room", lambda: client.put("full", "1"))
say("disarmed", [alarm.alarm_type for alarm in client.disarm_alarm()], list(client.list_alarms()))
client.defragment()
say("hash", client.hash() != 0)
blob = io.BytesIO()
client.snapshot(blob)
say("snapshot", len(blob.getvalue()) > 0)
client.close()
