//! A chunked body means the same in one piece and byte by byte, whether it is scanned, taken apart or passed on; and what
//! goes on is a chunked body with the same payload and without extensions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::wire::http1::ChunkedDecoder;
use tidegate::wire::http1::ChunkedError;

fuzz_target!(|bytes: &[u8]| {
    let whole = ChunkedDecoder::new().scan(bytes).map(|scan| (scan.consumed, scan.payload, scan.ended));
    let apart = byte_by_byte(bytes);
    assert_eq!(apart.as_ref().map(|(consumed, payload, ended)| (*consumed, payload.len(), *ended)), whole.as_ref().copied());
    let mut goes_on = bytes.to_vec();
    let passed = ChunkedDecoder::new().pass(&mut goes_on);
    assert_eq!(passed.map(|passed| (passed.consumed, passed.payload, passed.ended)), whole);
    let (Ok(passed), Ok((_, payload, _))) = (passed, apart) else { return };
    assert_eq!(goes_on[passed.consumed..], bytes[passed.consumed..], "what is behind stays where it is");
    goes_on.truncate(passed.kept);
    let (consumed, payload_again, ended) = byte_by_byte(&goes_on).expect("what goes on is understood");
    assert_eq!((consumed, payload_again, ended), (goes_on.len(), payload, passed.ended));
    let mut again = goes_on.clone();
    let kept = ChunkedDecoder::new().pass(&mut again).map(|passed| passed.kept);
    assert_eq!((kept, again), (Ok(goes_on.len()), goes_on), "what goes on has nothing more to leave out");
});

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
