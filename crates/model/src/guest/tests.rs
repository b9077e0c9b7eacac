use proptest::prelude::*;

use super::*;

fn all(decoder: &mut Decoder) -> Vec<Frame> {
    std::iter::from_fn(|| decoder.pop()).collect()
}

fn config() -> Config {
    Config {
        protocol: 1,
        instance_id: "vm_1".into(),
        hostname: "web-1".into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        entropy: Hidden::new("00ff"),
        clock_unix_ns: 1_700_000_000_000_000_000,
        root: Disk { device: "/dev/vda".into(), fs: "erofs".into() },
        scratch: None,
        network: None,
        process: Process {
            argv: vec!["/bin/true".into()],
            env: vec!["A=b".into()],
            workdir: String::new(),
            user: String::new(),
            prestart: Vec::new(),
            prestart_timeout_seconds: 30,
            restart: Restart::default(),
            grace_seconds: 10,
        },
        health: None,
        secrets: Some(Hidden::new("PASSWORD=hunter2")),
        secrets_required: true,
    }
}

#[test]
fn the_checksum_is_the_well_known_one() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    assert_eq!(crc32(b""), 0);
    assert_eq!(crc32(&[0u8; 32]), 0x190A_55AD);
}

#[test]
fn debug_shows_no_secret() {
    let text = format!("{:?}", config());
    assert!(!text.contains("hunter2") && !text.contains("00ff"), "{text}");
}

#[test]
fn a_config_survives_the_wire_and_unknown_fields_are_refused() {
    let mut bytes = Vec::new();
    ToGuest::Config(Box::new(config())).encode(&mut bytes).unwrap();
    let mut decoder = Decoder::new();
    decoder.push(&bytes);
    let frame = decoder.pop().unwrap();
    assert_eq!(frame.message::<ToGuest>().unwrap(), ToGuest::Config(Box::new(config())));

    let mut value = serde_json::to_value(config()).unwrap();
    value["surprise"] = 1.into();
    assert!(serde_json::from_value::<Config>(value).is_err());
    let mut value = serde_json::to_value(config()).unwrap();
    value["process"]["surprise"] = 1.into();
    assert!(serde_json::from_value::<Config>(value).is_err());
}

#[test]
fn the_protocol_is_the_newest_common_one() {
    assert_eq!(negotiate(1, 1), Some(1));
    assert_eq!(negotiate(1, 9), Some(PROTOCOL_MAX));
    assert_eq!(negotiate(PROTOCOL_MAX + 1, PROTOCOL_MAX + 3), None);
    assert_eq!(negotiate(0, 0), None);
}

#[test]
fn a_long_message_takes_several_frames_and_comes_as_one() {
    let mut long = config();
    long.secrets = Some(Hidden::new("\"".repeat(256 * 1024)));
    let mut bytes = Vec::new();
    ToGuest::Config(Box::new(long.clone())).encode(&mut bytes).unwrap();
    assert!(bytes.len() > 16 * PAYLOAD_MAX);
    let mut decoder = Decoder::new();
    for piece in bytes.chunks(1000) {
        decoder.push(piece);
    }
    assert_eq!(all(&mut decoder).pop().unwrap().message::<ToGuest>().unwrap(), ToGuest::Config(Box::new(long)));

    let mut huge = config();
    huge.secrets = Some(Hidden::new("x".repeat(CONTROL_MAX)));
    let mut bytes = Vec::new();
    assert!(ToGuest::Config(Box::new(huge)).encode(&mut bytes).is_err());
    assert!(bytes.is_empty());
}

#[test]
fn a_message_without_end_is_dropped_and_the_next_one_read() {
    let mut piece = Vec::new();
    encode(Kind::Control, 0, &vec![b'x'; PAYLOAD_MAX], &mut piece);
    // Set the flag and mend the header's checksum.
    piece[5] = FLAG_MORE;
    let header = crc32(&piece[..20]);
    piece[20..24].copy_from_slice(&header.to_le_bytes());
    let mut decoder = Decoder::new();
    for _ in 0..100 {
        decoder.push(&piece);
        assert_eq!(decoder.pop(), None);
    }
    let mut end = Vec::new();
    encode(Kind::Control, 0, b"tail", &mut end);
    ToHost::Pong { id: 7 }.encode(&mut end).unwrap();
    decoder.push(&end);
    let frames = all(&mut decoder);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].message::<ToHost>().unwrap(), ToHost::Pong { id: 7 });
}

#[test]
fn a_frame_cut_off_is_flushed_by_the_preamble_and_nothing_inside_it_is_believed() {
    // Data that contains a whole frame of its own, as a hostile client could send.
    let mut inner = Vec::new();
    ToGuest::Shutdown { grace_seconds: 0 }.encode(&mut inner).unwrap();
    inner.resize(PAYLOAD_MAX, b'.');
    let mut outer = Vec::new();
    encode(Kind::ExecStdin, 3, &inner, &mut outer);
    for cut in [1, 4, 23, 24, 25, 300, outer.len() - 1] {
        let mut bytes = outer[..cut].to_vec();
        preamble(&mut bytes);
        ToGuest::Ping { id: 9 }.encode(&mut bytes).unwrap();
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        let frames = all(&mut decoder);
        assert_eq!(frames.len(), 1, "cut at {cut}");
        assert_eq!(frames[0].message::<ToGuest>().unwrap(), ToGuest::Ping { id: 9 });
    }
}

#[test]
fn log_lines_survive_the_wire() {
    let line =
        LogLine { seq: 5, unix_ns: 77, stream: LogStream::Stderr, partial: true, text: vec![0xff; LOG_LINE_MAX] };
    let mut bytes = Vec::new();
    line.encode(&mut bytes);
    let mut decoder = Decoder::new();
    decoder.push(&bytes);
    assert_eq!(decoder.pop().unwrap().log_line().unwrap(), line);
    let short = Frame { kind: Kind::LogStdout, flags: 0, stream: 0, payload: vec![1, 2, 3] };
    assert!(short.log_line().is_err());
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096), step in 1usize..64) {
        let mut decoder = Decoder::new();
        for piece in bytes.chunks(step) {
            decoder.push(piece);
            while let Some(frame) = decoder.pop() {
                let _ = frame.message::<ToGuest>();
                let _ = frame.log_line();
            }
        }
    }

    #[test]
    fn frames_come_out_as_they_went_in(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..12),
        garbage in prop::collection::vec(any::<u8>(), 0..300),
        step in 1usize..100,
    ) {
        let mut bytes = garbage;
        preamble(&mut bytes);
        for (stream, payload) in payloads.iter().enumerate() {
            encode(Kind::ExecStdout, stream as u32, payload, &mut bytes);
        }
        let mut decoder = Decoder::new();
        let mut seen = Vec::new();
        for piece in bytes.chunks(step) {
            decoder.push(piece);
            seen.extend(all(&mut decoder).into_iter().map(|frame| frame.payload));
        }
        prop_assert_eq!(seen, payloads);
    }

    #[test]
    fn a_flipped_bit_costs_one_frame_at_most(
        at in 0usize..400, bit in 0u8..8, payload in prop::collection::vec(any::<u8>(), 100..=100),
    ) {
        let mut bytes = Vec::new();
        for stream in 0..4 {
            encode(Kind::ExecStdout, stream, &payload, &mut bytes);
        }
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        preamble(&mut bytes);
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        let frames = all(&mut decoder);
        prop_assert!(frames.len() >= 3);
        prop_assert!(frames.iter().all(|frame| frame.payload == payload));
    }
}
