//! No bytes make the request parser panic, and what is passed on is understood as what came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::wire::http1::ForwardRequest;
use tidegate::wire::http1::ForwardTo;
use tidegate::wire::http1::Parsed;
use tidegate::wire::http1::RequestHead;
use tidegate::wire::http1::Scheme;
use tidegate::wire::http1::forward_request;
use tidegate::wire::http1::parse_request;

fuzz_target!(|bytes: &[u8]| {
    let mut came = RequestHead::new();
    let Ok(Parsed::Complete(length)) = parse_request(bytes, &mut came) else { return };
    assert!(length <= bytes.len());
    if came.host().is_empty() {
        return;
    }
    let mut out = Vec::new();
    // An https target goes nowhere in plain but to another proxy: origin form would lose its scheme.
    let to = if came.scheme() == Scheme::Https { ForwardTo::Parent } else { ForwardTo::Origin };
    let how = ForwardRequest { via: "tidegate", to, keep_upgrade: true, ..ForwardRequest::default() };
    forward_request(&came, bytes, &how, &mut out);
    let mut went = RequestHead::new();
    match parse_request(&out, &mut went) {
        Ok(Parsed::Complete(length)) => assert_eq!(length, out.len(), "bytes behind the head"),
        other => panic!("{other:?}: {}", out.escape_ascii()),
    }
    assert_eq!((went.host(), went.port(), went.framing()), (came.host(), came.port(), came.framing()));
});
