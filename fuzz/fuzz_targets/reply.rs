//! No bytes make the reply parser panic, and what is passed on ends where what came ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::wire::http1::ForwardReply;
use tidegate::wire::http1::Parsed;
use tidegate::wire::http1::ReplyHead;
use tidegate::wire::http1::ReplyTo;
use tidegate::wire::http1::forward_reply;
use tidegate::wire::http1::parse_reply;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let to = [ReplyTo::Other, ReplyTo::Head, ReplyTo::Connect][usize::from(*first) % 3];
    let mut came = ReplyHead::new();
    let Ok(Parsed::Complete(length)) = parse_reply(bytes, to, &mut came) else { return };
    assert!(length <= bytes.len());
    let mut out = Vec::new();
    let how = ForwardReply { via: "tidegate", keep_upgrade: true, ..ForwardReply::default() };
    forward_reply(&came, bytes, &how, &mut out);
    let mut went = ReplyHead::new();
    match parse_reply(&out, to, &mut went) {
        Ok(Parsed::Complete(length)) => assert_eq!(length, out.len(), "bytes behind the head"),
        other => panic!("{other:?}: {}", out.escape_ascii()),
    }
    assert_eq!((went.status(), went.framing()), (came.status(), came.framing()));
});
