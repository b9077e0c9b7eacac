//! Plain HTTP on the door's port, and health over gRPC.

use chainfire::door::Options;
use etcd::proto::etcdserverpb::alarm_request::AlarmAction;
use etcd::proto::etcdserverpb::kv_client::KvClient;
use etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd::proto::etcdserverpb::{AlarmRequest, AlarmType, PutRequest, RangeRequest, StatusRequest};
use etcd::proto::health::HealthCheckRequest;
use etcd::proto::health::health_check_response::ServingStatus;
use etcd::proto::health::health_client::HealthClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

use crate::door_support::{Door, channel, serve_for_test, serve_with};

/// Status and body of a request over HTTP/1.1.
async fn ask(door: &Door, method: &str, path: &str) -> (u16, String) {
    ask_at(door.address(), method, path).await
}

pub async fn ask_at(address: impl tokio::net::ToSocketAddrs, method: &str, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn health_and_version_are_told_as_etcd_tells_them() {
    let door = serve_for_test().await;
    let version = format!(r#"{{"etcdserver":"{}","etcdcluster":"3.5.0"}}"#, Options::VERSION);
    assert_eq!(ask(&door, "GET", "/version").await, (200, version));
    assert_eq!(ask(&door, "GET", "/health").await, (200, r#"{"health":"true","reason":""}"#.into()));
    assert_eq!(ask(&door, "GET", "/livez").await, (200, "ok\n".into()));
    let ready = ask(&door, "GET", "/readyz?verbose").await;
    assert!(ready.0 == 200 && ready.1.contains("[+]linearizable_read ok\n"), "{ready:?}");
    assert_eq!(ask(&door, "GET", "/readyz/data_corruption").await, (200, "ok\n".into()));
    assert_eq!(ask(&door, "GET", "/readyz/nothing").await.0, 404);
    assert_eq!(ask(&door, "GET", "/nothing").await.0, 404);
    assert_eq!(ask(&door, "DELETE", "/health").await.0, 405);

    let mut health = HealthClient::new(channel(&door).await);
    let status = health.check(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::Serving);
    let unknown = health.check(HealthCheckRequest { service: "x".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut watch = health.watch(HealthCheckRequest { service: "x".into() }).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
}

#[tokio::test]
async fn alarms_stop_puts_and_show_in_health_until_they_are_taken_back() {
    let door = serve_for_test().await;
    let channel = channel(&door).await;
    let (mut kv, mut maintenance) = (KvClient::new(channel.clone()), MaintenanceClient::new(channel));
    let alarm = |action: AlarmAction, alarm: AlarmType| AlarmRequest {
        action: action.into(),
        member_id: 7,
        alarm: alarm.into(),
    };
    kv.put(PutRequest { key: "a".into(), ..PutRequest::default() }).await.unwrap();
    maintenance.alarm(alarm(AlarmAction::Activate, AlarmType::Nospace)).await.unwrap();
    let status = kv.put(PutRequest { key: "b".into(), ..PutRequest::default() }).await.unwrap_err();
    let text = "etcdserver: mvcc: database space exceeded";
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, text));
    kv.range(RangeRequest { key: "a".into(), ..RangeRequest::default() }).await.unwrap();
    let told = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(told.errors, ["memberID:7 alarm:NOSPACE "]);
    let ill = "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n";
    assert_eq!(ask(&door, "GET", "/health").await, (503, ill.into()));
    assert_eq!(ask(&door, "GET", "/health?exclude=NOSPACE").await.0, 200);
    let taken_back = maintenance.alarm(alarm(AlarmAction::Deactivate, AlarmType::Nospace)).await.unwrap();
    assert_eq!(taken_back.into_inner().alarms.len(), 1);
    kv.put(PutRequest { key: "b".into(), ..PutRequest::default() }).await.unwrap();

    maintenance.alarm(alarm(AlarmAction::Activate, AlarmType::Corrupt)).await.unwrap();
    let status = kv.put(PutRequest { key: "b".into(), ..PutRequest::default() }).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::DataLoss, "etcdserver: corrupt cluster"));
    assert_eq!(ask(&door, "GET", "/readyz").await.0, 503);
}

#[tokio::test]
async fn a_full_quota_rings_the_alarm_by_itself() {
    let options = Options { quota_bytes: Some(100 * 1024), ..Options::new(["http://127.0.0.1:0".into()]) };
    let door = serve_with(options).await;
    let channel = channel(&door).await;
    let (mut kv, mut maintenance) = (KvClient::new(channel.clone()), MaintenanceClient::new(channel));
    let status = loop {
        let put = PutRequest { key: "a".into(), value: vec![0; 4096].into(), ..PutRequest::default() };
        match kv.put(put).await {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            Err(status) => break status,
        }
    };
    assert_eq!(status.message(), "etcdserver: mvcc: database space exceeded");
    let all = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
    let alarms = maintenance.alarm(all).await.unwrap().into_inner().alarms;
    assert_eq!(
        alarms.iter().map(etcd::proto::etcdserverpb::AlarmMember::alarm).collect::<Vec<_>>(),
        [AlarmType::Nospace]
    );
}

#[tokio::test]
async fn what_is_counted_is_told_under_etcds_names() {
    let door = serve_for_test().await;
    let mut kv = KvClient::new(channel(&door).await);
    kv.put(PutRequest { key: "a".into(), ..PutRequest::default() }).await.unwrap();
    kv.put(PutRequest::default()).await.unwrap_err();
    let (code, page) = ask(&door, "GET", "/metrics").await;
    assert_eq!(code, 200);
    for line in [
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_mvcc_put_total 1",
        "etcd_debugging_mvcc_current_revision 2",
        "grpc_server_handled_total{grpc_code=\"OK\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
        "grpc_server_handled_total{grpc_code=\"InvalidArgument\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 1",
        "grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 2",
    ] {
        assert!(page.lines().any(|told| told == line), "{line}\n{page}");
    }
}

#[tokio::test]
async fn a_watch_in_json_is_a_line_for_each_answer() {
    let door = serve_for_test().await;
    let mut kv = KvClient::new(channel(&door).await);
    kv.put(PutRequest { key: "foo".into(), value: "bar".into(), ..PutRequest::default() }).await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(door.address()).await.unwrap();
    let body = r#"{"create_request":{"key":"Zm9v","start_revision":"2"}}"#;
    let length = body.len();
    let head = format!("POST /v3/watch HTTP/1.0\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    while answer.matches("\"result\"").count() < 2 {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await.unwrap();
        assert!(read > 0, "{answer}");
        answer += std::str::from_utf8(&piece[..read]).unwrap();
    }
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let lines: Vec<serde_json::Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["result"]["created"], true);
    assert_eq!(lines[1]["result"]["events"][0]["kv"]["value"], "YmFy");
}
