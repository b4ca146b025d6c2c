//! No bytes make the PROXY header's parser panic, take more than is there, or change its mind when more bytes come.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::wire::proxy_protocol::ProxyHeader;
use tidegate::wire::proxy_protocol::parse_proxy_header;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse_proxy_header(bytes);
    if let Ok(ProxyHeader::Whole { bytes: taken, .. }) = whole {
        assert!(taken <= bytes.len());
    }
    for end in 0..bytes.len() {
        let part = parse_proxy_header(&bytes[..end]);
        assert!(part == Ok(ProxyHeader::Partial) || part == whole, "{end}: {part:?}, then {whole:?}");
    }
});
