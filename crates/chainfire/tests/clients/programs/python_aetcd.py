"""What python's aetcd sees of a server; the lines are compared with those about another server."""

import asyncio
import io
import sys

import aetcd

port = int(sys.argv[1])
base = 0


def say(what, *told):
    print(what, *told, flush=True)


def row(kv):
    if kv is None:
        return None
    created, changed = kv.create_revision - base, kv.mod_revision - base
    return kv.key, kv.value, created, changed, kv.version, kv.lease


async def refused(what, doing):
    try:
        await doing
        say(what, "done")
    except Exception as error:  # Every way to fail has to be the same way.
        say(what, type(error).__name__, error.details() if hasattr(error, "details") else str(error))


async def watches(client):
    watch = await client.watch_prefix(b"w/", prev_kv=True)
    await client.put(b"w/a", b"1")
    await client.put(b"w/a", b"2")
    await client.delete(b"w/a")
    seen = []
    async for event in watch:
        previous = event.prev_kv.value if event.prev_kv else None
        seen.append((str(event.kind), event.kv.key, event.kv.value, event.kv.mod_revision - base, previous))
        if len(seen) == 3:
            break
    await watch.cancel()
    say("watch", seen)
    past = await client.watch(b"w/a", start_revision=base)
    seen = []
    async for event in past:
        seen.append((str(event.kind), event.kv.mod_revision - base))
        if len(seen) == 3:
            break
    await past.cancel()
    say("past", seen)
    deletes = await client.watch_prefix(b"w/", kind=aetcd.rtypes.EventKind.DELETE)
    await client.put(b"w/b", b"1")
    await client.delete(b"w/b")
    async for event in deletes:
        say("deletes alone", str(event.kind), event.kv.key)
        break
    await deletes.cancel()
    await refused("nothing happens", client.watch_once(b"w/quiet", timeout=1))


async def main():
    global base
    async with aetcd.Client(host="127.0.0.1", port=port, timeout=30) as client:
        base = (await client.put(b"base", b"0")).header.revision
        for n in range(5):
            put = await client.put(f"k/{n}".encode(), f"v{n}".encode())
            say("put", put.header.revision - base)
        say("get", row(await client.get(b"k/1")))
        say("missing", await client.get(b"nothing"))
        say("prefix", [row(kv) for kv in await client.get_prefix(b"k/")])
        say("range", [kv.key for kv in await client.get_range(b"k/1", b"k/4")])
        sorted_down = await client.get_prefix(b"k/", sort_order="descend", sort_target="mod")
        say("descending", [kv.key for kv in sorted_down], sorted_down.count)
        say("keys only", [row(kv) for kv in await client.get_prefix(b"k/", keys_only=True)])
        say("previous", row((await client.put(b"k/1", b"again", prev_kv=True)).prev_kv))
        deleted = await client.delete(b"k/4", prev_kv=True)
        say("delete", row(deleted.prev_kv), await client.delete(b"k/4"))
        say("delete range", (await client.delete_range(b"k/3", b"k/9")).deleted)
        say("delete prefix", (await client.delete_prefix(b"k/0")).deleted)
        say("replace", await client.replace(b"k/2", b"v2", b"w2"), await client.replace(b"k/2", b"v2", b"x2"))
        await refused("empty key", client.put(b"", b"x"))

        t = client.transactions
        done, answers = await client.transaction(
            compare=[t.value(b"k/2") == b"w2", t.version(b"k/2") > 1],
            success=[t.put(b"k/t", b"then"), t.get(b"k/t"), t.delete(b"k/1")],
            failure=[t.put(b"k/t", b"else")],
        )
        say("transaction", done, len(answers))
        done, answers = await client.transaction(compare=[t.mod(b"k/2") == 1], success=[], failure=[t.get(b"k/2")])
        say("other branch", done, len(answers))
        twice = [t.put(b"a", b"1"), t.put(b"a", b"2")]
        await refused("twice", client.transaction(compare=[], success=twice, failure=[]))

        await watches(client)

        lease = await client.lease(600, lease_id=9)
        await client.put(b"l/a", b"1", lease=lease)
        say("lease", lease.id, lease.ttl, await lease.remaining_ttl() > 590, await lease.keys())
        say("leased", row(await client.get(b"l/a")))
        await lease.refresh()
        await lease.revoke()
        say("revoked", await client.get(b"l/a"))
        await refused("revoked twice", client.revoke_lease(9))
        await refused("granted twice", grants_twice(client))
        async with client.lock(b"mine", ttl=60) as lock:
            say("locked", await lock.is_acquired())
        first = (await client.put(b"past", b"1")).header.revision
        await client.put(b"past", b"2")
        await client.compact(first + 1)
        await refused("compacted twice", client.compact(first))
        status = await client.status()
        say("status", status.version != "", status.db_size > 0, status.leader is not None)
        say("members", {member.client_urls != [] async for member in client.members()})
        await client.defragment()
        say("hash", await client.hash() != 0)
        blob = io.BytesIO()
        await client.snapshot(blob)
        say("snapshot", len(blob.getvalue()) > 0)


async def grants_twice(client):
    await client.lease(600, lease_id=10)
    await client.lease(600, lease_id=10)


asyncio.run(main())
