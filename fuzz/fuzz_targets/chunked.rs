//! A chunked body means the same in one piece and byte by byte, whether it is scanned or taken apart.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::wire::http1::ChunkedDecoder;
use tidegate::wire::http1::ChunkedError;

fuzz_target!(|bytes: &[u8]| {
    let whole = ChunkedDecoder::new().scan(bytes).map(|scan| (scan.consumed, scan.payload, scan.ended));
    assert_eq!(byte_by_byte(bytes), whole);
});

fn byte_by_byte(bytes: &[u8]) -> Result<(usize, usize, bool), ChunkedError> {
    let mut decoder = ChunkedDecoder::new();
    let (mut consumed, mut payload) = (0, 0);
    for byte in bytes.chunks(1) {
        if decoder.ended() {
            break;
        }
        let piece = decoder.next(byte)?;
        consumed += piece.consumed;
        payload += piece.payload.len();
    }
    Ok((consumed, payload, decoder.ended()))
}
