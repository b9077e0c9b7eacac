// What npm's etcd3 sees of a server; the lines are compared with those about another server.
'use strict';

const { Etcd3 } = require('etcd3');

const hosts = `http://127.0.0.1:${process.argv[2]}`;
const client = new Etcd3({ hosts });
let base = 0n;

const say = (what, ...told) => console.log(what, ...told.map((one) => JSON.stringify(one)));
const since = (revision) => String(BigInt(revision) - base);

const row = (kv) => [
  String(kv.key), String(kv.value), since(kv.create_revision), since(kv.mod_revision), kv.version, kv.lease,
];

async function refused(what, doing) {
  try {
    await doing();
    say(what, 'done');
  } catch (error) {
    say(what, error.constructor.name, String(error.details || error.message).split('\n')[0]);
  }
}

const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

async function keys() {
  for (let n = 0; n < 5; n += 1) {
    say('put', since((await client.put(`k/${n}`).value(`v${n}`)).header.revision));
  }
  say('get', await client.get('k/1').string(), await client.get('nothing').string(), await client.get('k/1').exists());
  say('rows', (await client.getAll().prefix('k/').exec()).kvs.map(row));
  say('sorted', await client.getAll().prefix('k/').sort('Value', 'Descend').limit(2).strings());
  say('keys', await client.getAll().prefix('k/').keys(), await client.getAll().prefix('k/').count());
  say('range', await client.getAll().inRange({ start: 'k/1', end: 'k/3' }).strings());
  say('previous', String((await client.put('k/1').value('again').getPrevious()).value));
  say('touched', (await client.put('k/1').touch()).header !== undefined);
  say('deleted', (await client.delete().key('k/4').getPrevious()).map(row), (await client.delete().prefix('k/3')).deleted);
  const old = BigInt((await client.get('k/1').exec()).header.revision);
  await client.put('k/1').value('newer');
  say('then', await client.get('k/1').revision(String(old)).string());
  await refused('empty key', () => client.put('').value('x').exec());
}

async function transactions() {
  const done = await client.if('k/1', 'Value', '==', 'newer').and('k/nothing', 'Create', '==', 0)
    .then(client.put('k/t').value('then'), client.get('k/t')).else(client.put('k/t').value('else')).commit();
  say('transaction', done.succeeded, done.responses.map((response) => response.response));
  const other = await client.if('k/1', 'Version', '>', 99).then(client.get('a')).else(client.get('k/t')).commit();
  say('other branch', other.succeeded, other.responses.length);
  await refused('twice', () => client.if('k/1', 'Version', '>', 0)
    .then(client.put('a').value('1'), client.put('a').value('2')).commit());
  await client.put('count').value(1);
  const add = () => client.stm().transact(async (tx) => tx.put('count').value(await tx.get('count').number() + 1));
  await Promise.all([add(), add(), add(), add()]);
  say('counted', await client.get('count').number());
}

async function watches() {
  const seen = [];
  const watch = await client.watch().prefix('w/').withPreviousKV().create();
  const enough = new Promise((done) => {
    watch.on('put', (kv, old) => seen.push(['put', row(kv), old ? String(old.value) : null]));
    watch.on('delete', (kv, old) => {
      seen.push(['delete', String(kv.key), old ? String(old.value) : null]);
      done();
    });
  });
  await client.put('w/a').value(1);
  await client.put('w/a').value(2);
  await client.delete().key('w/a');
  await enough;
  await watch.cancel();
  say('watch', seen);
  const past = await client.watch().key('w/a').startRevision(String(base)).create();
  const first = await new Promise((done) => past.on('put', done));
  say('past', row(first));
  await past.cancel();
}

async function leases() {
  const lease = client.lease(60);
  await lease.put('l/a').value('1');
  say('leased', await client.get('l/a').string(), (await client.leaseClient.leaseTimeToLive({
    ID: await lease.grant(), keys: true,
  })).keys.map(String));
  await lease.keepaliveOnce();
  await lease.revoke();
  say('revoked', await client.get('l/a').string());
  await refused('unknown lease', () => client.put('l/b').value('1').lease('12345').exec());
  const short = client.lease(1, { autoKeepAlive: false });
  await short.put('l/short').value('1');
  const until = Date.now() + 30000;
  while (await client.get('l/short').string() !== null && Date.now() < until) {
    await sleep(200);
  }
  say('ran out', await client.get('l/short').string());
}

async function locks() {
  await client.lock('mine').ttl(60).do(async () => {
    say('locked');
    await refused('taken', () => client.lock('mine').ttl(60).acquire());
  });
  say('again', await client.lock('mine').ttl(60).do(async () => 'got it'));
  const election = client.election('leader', 60);
  const campaign = election.campaign('one');
  await new Promise((done) => campaign.once('elected', done));
  say('elected', await election.leader());
  const observer = await election.observe();
  say('observed', observer.leader());
  await campaign.proclaim('two');
  while (observer.leader() !== 'two') {
    await new Promise((done) => observer.once('change', done));
  }
  say('proclaimed', observer.leader());
  await observer.cancel();
  await campaign.resign();
  say('resigned', await election.leader() || null);
}

async function users() {
  const root = await client.user('root').create('secret');
  await client.role('root').create();
  await root.addRole('root');
  const role = await client.role('reader').create();
  await role.grant({ permission: 'Read', range: client.range({ prefix: 'k/' }) });
  const ann = await client.user('ann').create('hers');
  await ann.addRole('reader');
  say('users', (await client.getUsers()).map((user) => user.name), (await client.getRoles()).map((one) => one.name));
  await client.auth.authEnable();
  const hers = new Etcd3({ hosts, auth: { username: 'ann', password: 'hers' } });
  say('allowed', await hers.get('k/1').string());
  await refused('denied', () => hers.put('k/1').value('x').exec());
  await refused('denied elsewhere', () => hers.get('other').string());
  hers.close();
  const wrong = new Etcd3({ hosts, auth: { username: 'ann', password: 'his' } });
  await refused('wrong password', () => wrong.get('k/1').string());
  wrong.close();
  const admin = new Etcd3({ hosts, auth: { username: 'root', password: 'secret' } });
  await admin.auth.authDisable();
  admin.close();
  say('permissions', (await role.permissions()).map((one) => one.permission));
  await ann.delete();
  await role.delete();
}

async function upkeep() {
  const status = await client.maintenance.status();
  say('status', status.version !== '', Number(status.dbSize) > 0, status.leader !== '0');
  say('members', (await client.cluster.memberList({})).members.length > 0);
  const revision = (await client.put('past').value(1)).header.revision;
  await client.kv.compact({ revision });
  await refused('compacted twice', () => client.kv.compact({ revision }));
  await client.maintenance.defragment();
  const snapshot = await client.maintenance.snapshot();
  const bytes = await new Promise((done) => {
    let count = 0;
    snapshot.on('data', (piece) => { count += piece.blob.length; });
    snapshot.on('end', () => done(count));
  });
  say('snapshot', bytes > 0);
}

async function all() {
  base = BigInt((await client.put('base').value('0')).header.revision);
  for (const part of [keys, transactions, watches, leases, locks, users, upkeep]) {
    await part();
  }
  client.close();
}

all().then(() => process.exit(0), (error) => {
  console.log(error);
  process.exit(1);
});
