#![allow(clippy::unwrap_used)]

use farlane_model::SessionId;

use super::*;

fn context() -> StreamContext {
    let task = SessionId::new(1, [1; 5]).task(1);
    let at = AttemptRef {
        task,
        attempt: 1,
        epoch: 1,
    };
    StreamContext::result(TenantId([2; 32]), at, NodeId([3; 32]))
}

#[test]
fn what_is_sealed_opens_at_every_size() {
    let key = TaskKey::generate();
    for len in [
        0,
        1,
        127,
        128,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        2 * CHUNK,
        3 * CHUNK + 7,
    ] {
        let plain: Vec<u8> = (0..len).map(|i| i as u8).collect();
        let sealed = seal(&key, &context(), &plain);
        assert_eq!(sealed.len(), sealed_len(len));
        assert_eq!(open(&key, &context(), &sealed, len).unwrap(), plain);
        let padded = seal_padded(&key, &context(), &plain);
        assert!(looks_sealed(&padded), "{len}");
        assert_eq!(
            open_padded(&key, &context(), &padded, 1 << 20).unwrap(),
            plain
        );
        let (left, right) = plain.split_at(len / 3);
        let parts = seal_padded_parts(&key, &context(), &[left, &[], right]);
        assert_eq!(parts.len(), padded.len());
        let alone = Bytes::from(parts);
        let held = alone.clone();
        for sealed in [held.clone(), Bytes::copy_from_slice(&held)] {
            let opened = open_padded_owned(&key, &context(), sealed, 1 << 20).unwrap();
            assert_eq!(opened, plain, "{len}");
        }
        let whole = open(&key, &context(), &padded, 1 << 20).unwrap();
        assert_eq!(whole, pad::pad(&plain), "{len}");
    }
}

#[test]
fn the_same_plaintext_never_seals_to_the_same_bytes() {
    let key = TaskKey::generate();
    let (a, b) = (seal(&key, &context(), b"x"), seal(&key, &context(), b"x"));
    assert_ne!(a[4..36], b[4..36]);
    assert_ne!(a[36..], b[36..]);
}

#[test]
fn any_wrong_bit_is_refused() {
    let key = TaskKey::generate();
    let sealed = seal(&key, &context(), b"a payload of some length");
    for bit in 0..sealed.len() * 8 {
        let mut bad = sealed.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&key, &context(), &bad, 1024).is_err(), "bit {bit}");
    }
    let long = seal(&key, &context(), &vec![7; 2 * CHUNK + 9]);
    for at in (0..long.len()).step_by(997) {
        let mut bad = long.clone();
        bad[at] ^= 0x10;
        assert!(open(&key, &context(), &bad, 1 << 20).is_err(), "byte {at}");
        let mut buffer = BytesMut::from(&bad[..]);
        assert!(open_in_place(&key, &context(), &mut buffer, 1 << 20).is_err());
        // Nothing is opened of what has another head; nothing is left of what was opened in part.
        let opened = buffer.iter().all(|b| *b == 0);
        assert!(opened || at < 4, "byte {at}");
    }
}

#[test]
fn nothing_can_be_cut_off_put_on_or_exchanged() {
    let key = TaskKey::generate();
    let sealed = seal(&key, &context(), &vec![7; 3 * CHUNK]);
    let chunk = |i: usize| HEADER + i * (CHUNK + TAG);
    let damaged = |bytes: &[u8]| open(&key, &context(), bytes, 1 << 20).is_err();
    for cut in [chunk(1), chunk(2), sealed.len() - 1, HEADER, 10, 0] {
        assert!(damaged(&sealed[..cut]), "cut at {cut}");
    }
    assert!(damaged(&[&sealed[..], &[0]].concat()));
    assert!(damaged(&[&sealed[..], &sealed[chunk(2)..]].concat()));
    let swapped = [
        &sealed[..HEADER],
        &sealed[chunk(1)..chunk(2)],
        &sealed[HEADER..chunk(1)],
        &sealed[chunk(2)..],
    ]
    .concat();
    assert!(damaged(&swapped));
}

#[test]
fn it_opens_in_its_own_context_only() {
    let key = TaskKey::generate();
    let mine = context();
    let sealed = seal(&key, &mine, b"x");
    let others = [
        StreamContext {
            kind: StreamKind::Exception,
            ..mine
        },
        StreamContext {
            kind: StreamKind::Payload,
            ..mine
        },
        StreamContext {
            tenant: TenantId([4; 32]),
            ..mine
        },
        StreamContext {
            task: mine.task.session().task(2),
            ..mine
        },
        StreamContext { epoch: 2, ..mine },
        StreamContext { attempt: 2, ..mine },
        StreamContext {
            node: NodeId([4; 32]),
            ..mine
        },
        StreamContext { part: 1, ..mine },
    ];
    for other in others {
        assert_eq!(
            open(&key, &other, &sealed, 10),
            Err(OpenError::Damaged),
            "{other:?}"
        );
    }
    assert_eq!(
        open(&TaskKey::generate(), &mine, &sealed, 10),
        Err(OpenError::Damaged)
    );
    assert!(open(&key, &mine, &sealed, 10).is_ok());
}

#[test]
fn the_output_is_bounded_before_anything_is_opened() {
    let key = TaskKey::generate();
    let sealed = seal(&key, &context(), &[0; 100]);
    assert_eq!(
        open(&key, &context(), &sealed, 99),
        Err(OpenError::TooLarge { limit: 99 })
    );
}

#[test]
fn plain_bytes_do_not_look_sealed() {
    let sealed = seal_padded(&TaskKey::generate(), &context(), b"x");
    assert!(looks_sealed(&sealed));
    assert!(!looks_sealed(&sealed[..sealed.len() - 1]));
    assert!(!looks_sealed(b"") && !looks_sealed(&[0; 128]) && !looks_sealed(b"\x80\x05pickle"));
    assert!(
        !looks_sealed(&seal(&TaskKey::generate(), &context(), b"x")),
        "not padded"
    );
}
