//! The read task: everything the guest says, to those who wait for it. It trusts nothing and waits for nobody.

use model::guest::{Decoder, Frame, Kind, Phase, ToGuest, ToHost};
use tokio::io::AsyncReadExt;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::mpsc::error::TrySendError;

use super::LogItem;
use super::shared::{Answer, ConfigAnswer, Shared};

pub const READ_MAX: usize = 64 * 1024;
/// Bytes outside of frames after the hello. An honest guest sends none.
const NOISE_MAX: u64 = 1024 * 1024;
/// Frames that cannot be read. An honest guest of another version sends a few.
const UNREADABLE_MAX: u32 = 1000;

/// Runs until the connection ends; gives the reason. Events below `folded` are in the state already.
pub async fn run(shared: &Shared, mut reader: OwnedReadHalf, mut decoder: Decoder, folded: u64) -> String {
    let mut buffer = vec![0u8; READ_MAX];
    let noise_before = decoder.noise().bytes;
    let mut unreadable = 0u32;
    loop {
        while let Some(frame) = decoder.pop() {
            if let Err(why) = take(shared, frame, folded) {
                tracing::debug!(%why, "a guest's frame was not understood");
                unreadable += 1;
            }
        }
        if decoder.noise().bytes - noise_before > NOISE_MAX || unreadable > UNREADABLE_MAX {
            return "the guest does not keep to the protocol".to_owned();
        }
        match reader.read(&mut buffer).await {
            Ok(0) => return "the machine ended".to_owned(),
            Ok(length) => decoder.push(&buffer[..length]),
            Err(error) => return error.to_string(),
        }
    }
}

fn take(shared: &Shared, frame: Frame, folded: u64) -> Result<(), String> {
    match frame.kind {
        Kind::Control => control(shared, &frame, folded),
        Kind::LogStdout | Kind::LogStderr => {
            let line = frame.log_line().map_err(|error| error.to_string())?;
            deliver(shared, LogItem::Line(line))
        }
        Kind::ExecStdout | Kind::ExecStderr => {
            // A stream that is not known any more was closed by us.
            let inbox = shared.sessions.lock().get(&frame.stream).cloned();
            match inbox {
                Some(inbox) if !inbox.push(frame.kind, frame.payload.into()) => {
                    // Output with holes helps nobody.
                    shared.try_send(&ToGuest::ExecClose { stream: frame.stream });
                    shared.sessions.lock().remove(&frame.stream);
                    inbox.disconnected();
                    Err(format!("session {} was sent more than its window", frame.stream))
                }
                _ => Ok(()),
            }
        }
        Kind::ExecStdin | Kind::ExecStdinEof => Err("input from a guest".to_owned()),
    }
}

fn deliver(shared: &Shared, item: LogItem) -> Result<(), String> {
    let mut lines = shared.lines.lock();
    let sent = lines.as_ref().filter(|lines| lines.started).map(|lines| lines.sender.try_send(item));
    match sent {
        None | Some(Ok(())) => Ok(()),
        Some(Err(TrySendError::Closed(_))) => {
            *lines = None;
            Ok(())
        }
        Some(Err(TrySendError::Full(_))) => {
            // A stream with holes helps nobody.
            *lines = None;
            Err("log lines beyond the window".to_owned())
        }
    }
}

fn logs_start(shared: &Shared, asked: u64, seq: u64) -> Result<(), String> {
    let started = shared.lines.lock().as_mut().filter(|lines| lines.asked == asked).map(|lines| lines.started = true);
    match started {
        Some(()) if seq != asked => deliver(shared, LogItem::Lost { from: asked, to: seq }),
        Some(()) | None => Ok(()),
    }
}

fn control(shared: &Shared, frame: &Frame, folded: u64) -> Result<(), String> {
    match frame.message::<ToHost>().map_err(|error| error.to_string())? {
        ToHost::Hello(_) => return Err("a second hello".to_owned()),
        ToHost::ConfigAck { accepted, boot_id, code, detail } => {
            if let Some(waiting) = shared.config.lock().take() {
                let _ = waiting.send(ConfigAnswer { accepted, boot_id, code, detail });
            }
        }
        ToHost::Event(event) => {
            tracing::debug!(seq = event.seq, unix_ns = event.unix_ns, event = ?event.event, "the guest tells");
            if event.seq >= folded {
                shared.state.send_modify(|state| {
                    state.apply(&event.event);
                    state.event_next = event.seq + 1;
                });
            }
            shared.publish(event);
        }
        ToHost::LogsStart { asked, seq } => logs_start(shared, asked, seq)?,
        ToHost::LogsLost { from, to } => deliver(shared, LogItem::Lost { from, to })?,
        ToHost::ExecStarted { stream, pid } => {
            if let Some(inbox) = shared.sessions.lock().get(&stream) {
                inbox.started(Ok(pid));
            }
        }
        ToHost::ExecRefused { stream, detail } => {
            if let Some(inbox) = shared.sessions.lock().remove(&stream) {
                inbox.started(Err(detail));
            }
        }
        ToHost::ExecExit { stream, exit } => {
            if let Some(inbox) = shared.sessions.lock().remove(&stream) {
                inbox.exited(exit);
            }
        }
        ToHost::ExecCredit { stream, bytes } => {
            if let Some(inbox) = shared.sessions.lock().get(&stream) {
                inbox.add_credit(bytes);
            }
        }
        ToHost::ShuttingDown => {
            shared.state.send_modify(|state| state.phase = Phase::Stopping);
            shared.stopping.send_replace(true);
        }
        ToHost::TemplatePrepared { failure } => drop(shared.prepared.send_replace(Some(failure))),
        ToHost::Pong { id } => answer(shared, id, Answer::Pong),
        ToHost::Stats { id, stats } => answer(shared, id, Answer::Stats(stats)),
    }
    Ok(())
}

fn answer(shared: &Shared, id: u64, answer: Answer) {
    if let Some(waiting) = shared.answers.lock().remove(&id) {
        let _ = waiting.send(answer);
    }
}
