//! The ingress against real servers and real clients, all on loopback.

mod config;
mod drain;
mod http;
mod http2;
mod limits;
mod load;
mod real;
mod retry;
mod smuggle;
mod support;
mod tcp;
mod tls;
mod websocket;
