//! No field value makes the readers of X-Forwarded-For and Forwarded panic, and who is named was written there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::wire::forwarded::client_by_forwarded;
use tidegate::wire::forwarded::client_by_x_forwarded_for;

fuzz_target!(|bytes: &[u8]| {
    let values = || bytes.split(|byte| *byte == b'\n');
    for found in [client_by_x_forwarded_for(values(), |ip| ip.is_loopback()), client_by_forwarded(values(), |_| false)] {
        assert!(found.is_none() || bytes.iter().any(u8::is_ascii_hexdigit) || bytes.contains(&b':'));
    }
});
