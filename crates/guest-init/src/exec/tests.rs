//! Real programs over a socket in place of the port.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use model::guest::{Decoder, HelloHost};
use rustix::process::{WaitOptions, waitpid};

use super::*;
use crate::program::environment;

struct Host {
    socket: UnixStream,
    decoder: Decoder,
}

fn pair() -> (Link, Host) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut link = Link::new(File::from(OwnedFd::from(ours)));
    let hello = HelloHost { nonce: String::new(), protocol_min: 1, protocol_max: 1 };
    link.attach(&hello, &ToHost::ShuttingDown);
    (link, Host { socket: theirs, decoder: Decoder::new() })
}

fn start(argv: &[&str], pty: Option<Pty>) -> Option<Session> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: changing users needs root");
        return None;
    }
    let argv = argv.iter().map(|word| (*word).to_owned()).collect();
    let open = ExecOpen { stream: 9, argv, env: Vec::new(), cwd: None, user: None, pty };
    let identity = Identity::root();
    let started = Session::start(&open, &identity, |stdio| Program {
        argv: &open.argv,
        env: environment(&[], &identity, pty.is_some()),
        workdir: "/",
        identity: &identity,
        stdio,
        terminal: pty.is_some(),
        group: None,
    });
    Some(started.unwrap().session)
}

/// Runs the session to its end as the loop does; gives output, errors and the exit as the host saw them.
fn run(session: &mut Session, link: &mut Link, host: &mut Host) -> (Vec<u8>, Vec<u8>, Exit) {
    let (mut output, mut errors, mut end) = (Vec::new(), Vec::new(), None);
    let mut buffer = vec![0u8; 64 * 1024];
    for _ in 0..1500 {
        if session.exit.is_none()
            && let Some((_, status)) = waitpid(Some(session.leader), WaitOptions::NOHANG).unwrap()
        {
            let exit = Exit { code: status.exit_status(), signal: status.terminating_signal(), oom: false };
            session.exited(exit, crate::clock::monotonic_ms());
        }
        session.tick(crate::clock::monotonic_ms());
        let over = session.pump(link);
        link.flush();
        while let Ok(length @ 1..) = host.socket.read(&mut buffer) {
            host.decoder.push(&buffer[..length]);
            link.flush();
        }
        while let Some(frame) = host.decoder.pop() {
            match frame.kind {
                Kind::ExecStdout => output.extend_from_slice(&frame.payload),
                Kind::ExecStderr => errors.extend_from_slice(&frame.payload),
                _ => {
                    if let Ok(ToHost::ExecExit { exit, .. }) = frame.message() {
                        end = Some(exit);
                    }
                }
            }
        }
        session.add_credit(EXEC_WINDOW);
        if over && let Some(end) = end {
            return (output, errors, end);
        }
    }
    panic!("the session did not end; so far {output:?} {errors:?} {end:?}");
}

#[test]
fn output_errors_and_code_come_apart() {
    let (mut link, mut host) = pair();
    let Some(mut session) = start(&["sh", "-c", "echo out; echo err >&2; exit 7"], None) else { return };
    let (output, errors, exit) = run(&mut session, &mut link, &mut host);
    assert_eq!((output.as_slice(), errors.as_slice(), exit.code), (b"out\n".as_slice(), b"err\n".as_slice(), Some(7)));
}

#[test]
fn input_reaches_the_program_up_to_its_end() {
    let (mut link, mut host) = pair();
    let Some(mut session) = start(&["cat"], None) else { return };
    let data: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
    for piece in data.chunks(PAYLOAD_MAX) {
        assert!(session.stdin(piece));
    }
    assert!(!session.stdin(&vec![0; EXEC_WINDOW as usize]), "more than the window");
    session.stdin_end();
    let (output, _, exit) = run(&mut session, &mut link, &mut host);
    assert_eq!((output, exit.code), (data, Some(0)));
}

#[test]
fn a_terminal_has_a_size_and_a_controlling_process() {
    let (mut link, mut host) = pair();
    let pty = Some(Pty { rows: 31, cols: 97 });
    let Some(mut session) = start(&["sh", "-c", "stty size; tty; read line; echo got $line; exit 4"], pty) else {
        return;
    };
    session.stdin(b"typed\n");
    let (output, errors, exit) = run(&mut session, &mut link, &mut host);
    let text = String::from_utf8_lossy(&output);
    assert!(text.contains("31 97") && text.contains("/dev/pts/") && text.contains("got typed"), "{text}");
    assert_eq!((errors.len(), exit.code), (0, Some(4)));
}

#[test]
fn a_child_left_behind_does_not_hold_the_session() {
    let (mut link, mut host) = pair();
    let Some(mut session) = start(&["sh", "-c", "sleep 40 & echo $!"], None) else { return };
    let (output, _, exit) = run(&mut session, &mut link, &mut host);
    assert_eq!(exit.code, Some(0));
    let child = String::from_utf8(output).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(Pid::from_raw(child).unwrap(), Signal::KILL).unwrap();
}

#[test]
fn a_client_that_left_ends_its_program() {
    let (mut link, mut host) = pair();
    let Some(mut session) = start(&["sleep", "1000"], None) else { return };
    session.close(crate::clock::monotonic_ms());
    let (_, _, exit) = run(&mut session, &mut link, &mut host);
    assert_eq!(exit.signal, Some(libc::SIGHUP));
}

#[test]
fn a_program_deaf_to_hup_gets_term_and_then_kill() {
    let (mut link, mut host) = pair();
    let Some(mut session) = start(&["sh", "-c", "trap '' HUP TERM; echo set; while :; do sleep 1; done"], None) else {
        return;
    };
    // Wait until the traps are set.
    while host.decoder.pop().is_none_or(|frame| frame.kind != Kind::ExecStdout) {
        session.pump(&mut link);
        link.flush();
        let mut buffer = [0u8; 4096];
        if let Ok(length) = host.socket.read(&mut buffer) {
            host.decoder.push(&buffer[..length]);
        }
    }
    let long_ago = crate::clock::monotonic_ms().saturating_sub(KILL_AFTER_MS);
    session.close(long_ago);
    assert_eq!(session.deadline(), Some(long_ago + TERM_AFTER_MS));
    session.tick(long_ago + TERM_AFTER_MS);
    assert_eq!(session.deadline(), Some(long_ago + KILL_AFTER_MS));
    let (_, _, exit) = run(&mut session, &mut link, &mut host);
    assert_eq!(exit.signal, Some(libc::SIGKILL));
}
