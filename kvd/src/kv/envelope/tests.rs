use proptest::prelude::*;

use super::*;
use crate::kv::auth::Role;
use crate::kv::golden;

fn samples() -> Vec<Envelope<'static>> {
    let sessions = [
        SessionRef::None,
        SessionRef::Id(300),
        SessionRef::Named(u128::MAX),
    ];
    let roles = [Role::Client, Role::Admin, Role::Http, Role::Internal];
    let sample = |session, role| Envelope {
        principal: PrincipalRef { role, name: "ops" },
        session,
        sequence: 7,
        done_below: 5,
        log_time_ms: 1 << 40,
        command_crc: 0xdead_beef,
        command: b"the client's own bytes",
    };
    let of_sessions = sessions
        .into_iter()
        .map(|session| sample(session, Role::Client));
    of_sessions
        .chain(roles.into_iter().map(|role| sample(SessionRef::None, role)))
        .collect()
}

#[test]
fn golden_bytes() {
    let samples = samples()
        .into_iter()
        .map(|envelope| (format!("{envelope:?}"), envelope.encode().to_vec()));
    golden::check("kv/golden/envelope.txt", &samples.collect::<Vec<_>>());
}

#[test]
fn an_envelope_comes_back_and_its_command_is_not_copied() {
    for envelope in samples() {
        let payload = envelope.encode();
        let decoded = Envelope::decode(&payload).unwrap();
        assert_eq!(decoded, envelope);
        assert!(payload.as_ptr_range().contains(&decoded.command.as_ptr()));
        let head = payload.len() - envelope.command.len();
        for len in 0..head {
            assert!(
                Envelope::decode(&payload[..len]).is_err(),
                "cut at {len} of {head}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Case 62: arbitrary bytes end in an envelope or a typed error.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        for bytes in [[&[ENVELOPE_VERSION], &bytes[..]].concat(), bytes] {
            if let Ok(envelope) = Envelope::decode(&bytes) {
                let encoded = envelope.encode();
                prop_assert_eq!(Envelope::decode(&encoded), Ok(envelope));
            }
        }
    }
}
