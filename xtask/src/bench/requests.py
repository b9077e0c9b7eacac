# Sequential requests over one kept HTTPS connection: 200 reads, 200 creates, then the creates are removed again.
import http.client, json, os, ssl, sys, time, urllib.parse, uuid

api, scope, data = sys.argv[1:4]
COUNT = 200
place = urllib.parse.urlparse(api)
trust = ssl.create_default_context(cafile=os.path.join(data, "tls", "ca.pem"))
connection = http.client.HTTPSConnection(place.hostname, place.port, context=trust, timeout=30)
token = open(os.path.join(data, "admin.token")).read().strip()


def ask(method, path, body=None, headers=None):
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json", **(headers or {})}
    began = time.perf_counter()
    connection.request(method, path, body and json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    took = (time.perf_counter() - began) * 1000
    if answer.status >= 300:
        sys.exit(f"{method} {path}: {answer.status} {text.decode()}")
    return took, json.loads(text)


def create(number):
    body = {"scope": scope, "name": f"made-{number}", "spec": {}}
    return ask("POST", "/v1/apps", body, {"Idempotency-Key": str(uuid.uuid4())})


def percentile(times, part):
    return sorted(times)[min(len(times) - 1, int(len(times) * part))]


def syncs():
    times = []
    with open(os.path.join(data, "sync.probe"), "wb") as probe:
        for _ in range(COUNT):
            began = time.perf_counter()
            probe.write(b"x" * 4096)
            probe.flush()
            os.fdatasync(probe.fileno())
            times.append((time.perf_counter() - began) * 1000)
    os.unlink(os.path.join(data, "sync.probe"))
    return times


project = scope.rsplit("/", 1)[1]
ask("GET", "/v1/projects/" + project)
reads = [ask("GET", "/v1/projects/" + project)[0] for _ in range(COUNT)]
made = [create(number) for number in range(COUNT)]
creates = [took for took, _ in made]
figures = {"fdatasync_p50_ms": percentile(syncs(), 0.5)}
for name, times in (("get", reads), ("create", creates)):
    figures[name + "_p50_ms"] = percentile(times, 0.5)
    figures[name + "_p99_ms"] = percentile(times, 0.99)
for _, row in made:
    ask("DELETE", "/v1/apps/" + row["id"])
print(json.dumps(figures))
