//! What must hold for every input, whoever makes it up: the fuzz targets run it on libFuzzer's inputs, and
//! `cargo test --test framing` on the corpus and on mutations of it. Here what clients, origins and balancers send; in
//! `formats.rs` what nodes and administrators write, and what name servers answer.

#[path = "formats.rs"]
pub mod formats;

use tidegate::wire::client_hello::FirstFlight;
use tidegate::wire::client_hello::parse_client_hello;
use tidegate::wire::forwarded::client_by_forwarded;
use tidegate::wire::forwarded::client_by_x_forwarded_for;
use tidegate::wire::http1::ChunkedDecoder;
use tidegate::wire::http1::ChunkedError;
use tidegate::wire::http1::ForwardReply;
use tidegate::wire::http1::ForwardRequest;
use tidegate::wire::http1::ForwardTo;
use tidegate::wire::http1::Parsed;
use tidegate::wire::http1::ReplyHead;
use tidegate::wire::http1::ReplyTo;
use tidegate::wire::http1::RequestHead;
use tidegate::wire::http1::Scheme;
use tidegate::wire::http1::forward_reply;
use tidegate::wire::http1::forward_request;
use tidegate::wire::http1::parse_reply;
use tidegate::wire::http1::parse_request;
use tidegate::wire::proxy_protocol::ProxyHeader;
use tidegate::wire::proxy_protocol::parse_proxy_header;

/// A target and what it checks.
pub type Target = (&'static str, fn(&[u8]));

/// The targets by name: each has a folder of inputs in `corpus/`.
#[allow(dead_code)] // a target runs one
pub const TARGETS: [Target; 13] = [
    ("request", request),
    ("reply", reply),
    ("chunked", chunked),
    ("proxy_header", proxy_header),
    ("forwarded", forwarded),
    ("client_hello", client_hello),
    ("dns_answer", formats::dns_answer),
    ("record_line", formats::record_line),
    ("record_batch", formats::record_batch),
    ("record_block", formats::record_block),
    ("policy_document", formats::policy_document),
    ("cluster_message", formats::cluster_message),
    ("startup_ini", formats::startup_ini),
];

/// What is passed on of a request is understood as what came, and a head that came in two parts as one in one.
pub fn request(bytes: &[u8]) {
    let mut came = RequestHead::new();
    let parsed = parse_request(bytes, &mut came);
    let mut in_parts = RequestHead::new();
    let (early, late) = bytes.split_at(bytes.len() / 2);
    match parse_request(early, &mut in_parts) {
        // Without another line's end the parser does not look again: a fault in what came is told a little later.
        Ok(Parsed::Partial) if late.contains(&b'\n') => assert_eq!(parse_request(bytes, &mut in_parts), parsed),
        Ok(Parsed::Partial) => {}
        first => assert_eq!(first, parsed, "more bytes changed what had been read"),
    }
    let Ok(Parsed::Complete(length)) = parsed else { return };
    assert!(length <= bytes.len());
    // Without a host it goes nowhere; an https target goes to another proxy alone, since origin form would lose the scheme.
    if came.host().is_empty() {
        return;
    }
    let to = if came.scheme() == Scheme::Https { ForwardTo::Parent } else { ForwardTo::Origin };
    let mut out = Vec::new();
    let how = ForwardRequest { via: "tidegate", to, keep_upgrade: true, ..ForwardRequest::default() };
    forward_request(&came, bytes, &how, &mut out);
    if has_too_many_fields(&out) {
        return;
    }
    let mut went = RequestHead::new();
    assert_eq!(parse_request(&out, &mut went), Ok(Parsed::Complete(out.len())), "{}", out.escape_ascii());
    assert_eq!((went.host(), went.port(), went.framing()), (came.host(), came.port(), came.framing()));
    assert_eq!((went.method(&out), went.wants_upgrade()), (came.method(bytes), came.wants_upgrade()));
}

/// Whether a head that had as many fields as a head may have has more with the ones we add: the next hop decides by its own bound.
fn has_too_many_fields(head: &[u8]) -> bool {
    // Besides the fields, its first line and the empty one.
    head.split(|byte| *byte == b'\n').count() - 1 > tidegate::limits::HEAD_FIELDS_MAX + 2
}

/// What is passed on of a reply ends where what came ends, in one part or two. The first byte chooses the request it answers.
pub fn reply(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let to = [ReplyTo::Other, ReplyTo::Head, ReplyTo::Connect][usize::from(*first) % 3];
    let mut came = ReplyHead::new();
    let parsed = parse_reply(bytes, to, &mut came);
    let mut in_parts = ReplyHead::new();
    let (early, late) = bytes.split_at(bytes.len() / 2);
    match parse_reply(early, to, &mut in_parts) {
        Ok(Parsed::Partial) if late.contains(&b'\n') => assert_eq!(parse_reply(bytes, to, &mut in_parts), parsed),
        Ok(Parsed::Partial) => {}
        first => assert_eq!(first, parsed, "more bytes changed what had been read"),
    }
    let Ok(Parsed::Complete(length)) = parsed else { return };
    assert!(length <= bytes.len());
    let mut out = Vec::new();
    let how = ForwardReply { via: "tidegate", keep_upgrade: true, ..ForwardReply::default() };
    forward_reply(&came, bytes, &how, &mut out);
    if has_too_many_fields(&out) {
        return;
    }
    let mut went = ReplyHead::new();
    assert_eq!(parse_reply(&out, to, &mut went), Ok(Parsed::Complete(out.len())), "{}", out.escape_ascii());
    assert_eq!((went.status(), went.framing()), (came.status(), came.framing()));
}

/// A chunked body means the same in one piece and byte by byte, whether it is scanned, taken apart or passed on; and what
/// goes on is a chunked body with the same payload and nothing more to leave out.
pub fn chunked(bytes: &[u8]) {
    let whole = ChunkedDecoder::new().scan(bytes).map(|scan| (scan.consumed, scan.payload, scan.ended));
    let apart = byte_by_byte(bytes);
    assert_eq!(
        apart.as_ref().map(|(consumed, payload, ended)| (*consumed, payload.len(), *ended)),
        whole.as_ref().copied()
    );
    let mut goes_on = bytes.to_vec();
    let passed = ChunkedDecoder::new().pass(&mut goes_on);
    assert_eq!(passed.map(|passed| (passed.consumed, passed.payload, passed.ended)), whole);
    let (Ok(passed), Ok((_, payload, _))) = (passed, apart) else { return };
    assert_eq!(goes_on[passed.consumed..], bytes[passed.consumed..], "what is behind stays where it is");
    goes_on.truncate(passed.kept);
    let again = byte_by_byte(&goes_on).expect("what goes on is understood");
    assert_eq!(again, (goes_on.len(), payload, passed.ended));
    let mut twice = goes_on.clone();
    let kept = ChunkedDecoder::new().pass(&mut twice).map(|passed| passed.kept);
    assert_eq!((kept, twice), (Ok(goes_on.len()), goes_on));
}

fn byte_by_byte(bytes: &[u8]) -> Result<(usize, Vec<u8>, bool), ChunkedError> {
    let mut decoder = ChunkedDecoder::new();
    let (mut consumed, mut payload) = (0, Vec::new());
    for byte in bytes.chunks(1) {
        if decoder.ended() {
            break;
        }
        let piece = decoder.next(byte)?;
        consumed += piece.consumed;
        payload.extend_from_slice(&byte[piece.payload]);
    }
    Ok((consumed, payload, decoder.ended()))
}

/// The PROXY header's parser takes no more than is there, and does not change its mind when more bytes come.
pub fn proxy_header(bytes: &[u8]) {
    let whole = parse_proxy_header(bytes);
    if let Ok(ProxyHeader::Whole { bytes: taken, .. }) = whole {
        assert!(taken <= bytes.len());
    }
    for end in 0..bytes.len() {
        let part = parse_proxy_header(&bytes[..end]);
        assert!(part == Ok(ProxyHeader::Partial) || part == whole, "{end}: {part:?}, then {whole:?}");
    }
}

/// Whom X-Forwarded-For and Forwarded name was written there.
pub fn forwarded(bytes: &[u8]) {
    let values = || bytes.split(|byte| *byte == b'\n');
    for found in [client_by_x_forwarded_for(values(), |ip| ip.is_loopback()), client_by_forwarded(values(), |_| false)]
    {
        assert!(found.is_none() || bytes.iter().any(u8::is_ascii_hexdigit) || bytes.contains(&b':'));
    }
}

/// A ClientHello means the same in all pieces and in one, what it names can stand in a log, and its own words are in it.
pub fn client_hello(bytes: &[u8]) {
    let whole = parse_client_hello(bytes);
    // All ends of a long one would take too long; those at its beginning have the lengths.
    let ends = (0..bytes.len()).filter(|end| *end < 300 || end % 97 == 0);
    for part in ends.map(|end| parse_client_hello(&bytes[..end])) {
        assert!(part == Ok(FirstFlight::Partial) || part == whole, "{part:?}, then {whole:?}");
    }
    let Ok(FirstFlight::Hello(hello)) = whole else { return };
    assert!(hello.versions().count() > 0);
    assert!(hello.protocols().all(|name| !name.is_empty()));
    if let Some(name) = hello.server_name() {
        assert!(name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\\"".contains(&byte)));
    }
}
