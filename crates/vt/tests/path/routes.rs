//! Ways in besides HTTP by host name.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::Scenario;
use crate::cloud::{Cloud, free_port};

pub const ALL: &[Scenario] = &[("routes::tcp_by_port_and_more_hosts", tcp_by_port_and_more_hosts)];

fn tcp_by_port_and_more_hosts(cloud: &Cloud) {
    let folder = cloud.app("routed", "v1", 1);
    cloud.vt(&folder, &["deploy"]).ok();
    let port = free_port();
    let listen = port.to_string();
    cloud
        .vt(
            &folder,
            &[
                "route",
                "create",
                "raw",
                "--mode",
                "tcp",
                "--listen-port",
                &listen,
                "--process",
                "web",
                "--port",
                "8080",
            ],
        )
        .ok();
    let answer = cloud.eventually("the port answers", || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.contains("200 OK").then_some(text)
    });
    assert!(answer.contains("hello from Photon"), "{answer}");
    cloud
        .vt(
            &folder,
            &[
                "route",
                "create",
                "named",
                "--mode",
                "http",
                "--host",
                "named.example",
                "--process",
                "web",
                "--port",
                "8080",
            ],
        )
        .ok();
    let url = format!("http://named.example:{}/", cloud.http_port);
    cloud.eventually("the other host answers", || cloud.get(&url).ok().stdout.contains("200 OK").then_some(()));
    // Taken, denied, unknown: refused with the field.
    let taken = cloud.vt(
        &folder,
        &[
            "route",
            "create",
            "again",
            "--mode",
            "http",
            "--host",
            "named.example",
            "--process",
            "web",
            "--port",
            "8080",
        ],
    );
    assert_eq!(taken.code, 8, "{}", taken.stderr);
    let denied = cloud.vt(
        &folder,
        &["route", "create", "mail", "--mode", "tcp", "--listen-port", "25", "--process", "web", "--port", "8080"],
    );
    assert!(denied.code == 2 && denied.stderr.contains("25"), "{}", denied.stderr);
    cloud.vt(&folder, &["route", "delete", "raw", "--yes"]).ok();
    cloud.eventually("the port is closed", || TcpStream::connect(("127.0.0.1", port)).is_err().then_some(()));
    cloud.vt(&folder, &["destroy", "--yes"]).ok();
}
