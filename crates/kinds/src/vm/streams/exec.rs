//! A process beside the workload, over frames.

use bytes::{BufMut as _, Bytes, BytesMut};
use model::guest::{LogStream, Pty};
use model::{Code, Error, Row};
use plasmavmc::ExecRequest;
use plasmavmc::channel::{Control, Session, Stdin};
use reconcile::Stream;
use reconcile::stream::Far;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::engines::Engines;

const INPUT: u8 = 0x01;
const OUTPUT: u8 = 0x02;
const ERRORS: u8 = 0x03;
const CONTROL: u8 = 0x10;
const END: u8 = 0x11;

/// The caller's first message.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    argv: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    cwd: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    pty: Option<Size>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Size {
    rows: u16,
    cols: u16,
}

/// What the caller may say later besides input. One of the three.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Said {
    resize: Option<Size>,
    signal: Option<String>,
    close: bool,
}

pub async fn exec(engines: &Engines, row: &Row, parameters: &Value) -> Result<Stream, Error> {
    let request = parameters.get("request").unwrap_or(parameters);
    let request: Request = reconcile::kind::read("request", request)?;
    if request.argv.is_empty() {
        return Err(Error::invalid("request.argv", "`argv` is empty: name the program to run"));
    }
    let request = ExecRequest {
        argv: request.argv,
        env: request.env,
        cwd: request.cwd,
        user: request.user,
        pty: request.pty.map(|size| Pty { rows: size.rows, cols: size.cols }),
    };
    let session = engines.machines.exec(row.id.as_str(), request).await.map_err(|error| {
        let message = format!("no program could be started in {}: {error}", row.name);
        Error::new(Code::Failed, message).hint(error.remedy()).reason(error.code())
    })?;
    let (stream, far) = reconcile::stream::pair();
    tokio::spawn(carry(session, far));
    Ok(stream)
}

/// Carries frames both ways until the program has ended or the caller has gone.
async fn carry(session: Session, far: Far) {
    let Session { stdin, mut output, control } = session;
    let Far { input, output: to_caller } = far;
    let listening = tokio::spawn(listen(stdin, control.clone(), input));
    while let Some(chunk) = output.next().await {
        let kind = if chunk.stream == LogStream::Stderr { ERRORS } else { OUTPUT };
        if to_caller.send(frame(kind, &chunk.data)).await.is_err() {
            // The caller has hung up: with the last part of the session dropped the program is told to end.
            listening.abort();
            return;
        }
    }
    let end = match control.wait().await {
        Ok(exit) => json!({ "exit_code": exit.code, "signal": exit.signal, "error": null }),
        Err(error) => json!({ "exit_code": null, "signal": null, "error": error.to_string() }),
    };
    let _ = to_caller.send(frame(END, end.to_string().as_bytes())).await;
    listening.abort();
}

fn frame(kind: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 1);
    frame.put_u8(kind);
    frame.put_slice(payload);
    frame.freeze()
}

async fn listen(mut stdin: Stdin, control: Control, mut input: tokio::sync::mpsc::Receiver<Bytes>) {
    while let Some(message) = input.recv().await {
        let Some((kind, payload)) = message.split_first() else { continue };
        let passed = match *kind {
            INPUT if payload.is_empty() => stdin.finish().await,
            INPUT => stdin.write(payload).await,
            CONTROL => say(&control, payload).await,
            // A frame of a later protocol: nothing here depends on it.
            _ => Ok(()),
        };
        if let Err(error) = passed {
            tracing::debug!(%error, "input for a program that has ended");
            return;
        }
    }
    let _ = control.close().await;
}

async fn say(control: &Control, payload: &[u8]) -> Result<(), plasmavmc::channel::Error> {
    let Ok(said) = serde_json::from_slice::<Said>(payload) else {
        tracing::debug!("a control frame that cannot be read");
        return Ok(());
    };
    if let Some(size) = said.resize {
        control.resize(size.rows, size.cols).await?;
    }
    if let Some(signal) = said.signal.as_deref().and_then(signal_number) {
        control.signal(signal).await?;
    }
    if said.close {
        control.close().await?;
    }
    Ok(())
}

/// The signals that a caller may send, by the names of signal(7) without `SIG`.
fn signal_number(name: &str) -> Option<i32> {
    Some(match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "KILL" => 9,
        "USR1" => 10,
        "USR2" => 12,
        "TERM" => 15,
        "WINCH" => 28,
        _ => return None,
    })
}
