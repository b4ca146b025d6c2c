//! Chunked bodies, whole and in pieces.
use tidegate::wire::http1::*;

/// What goes on of a chunked body handed over in pieces of the given sizes, and how many bytes it had.
pub fn pass_chunked(bytes: &[u8], sizes: &[usize]) -> Result<(Vec<u8>, usize, bool), ChunkedError> {
    let (mut decoder, mut out, mut used) = (ChunkedDecoder::new(), Vec::new(), 0);
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(sizes.last().copied().unwrap_or(usize::MAX)));
    while used < bytes.len() && !decoder.ended() {
        let size = sizes.next().unwrap_or(1).clamp(1, bytes.len() - used);
        let mut part = bytes[used..used + size].to_vec();
        let passed = decoder.pass(&mut part)?;
        assert_eq!(&part[passed.consumed..], &bytes[used + passed.consumed..used + size], "what is behind stays");
        out.extend_from_slice(&part[..passed.kept]);
        used += passed.consumed;
    }
    Ok((out, used, decoder.ended()))
}

/// Reads a chunked body handed over in pieces of the given sizes (the last one again and again): payload and bytes used.
pub fn read_chunked(bytes: &[u8], sizes: &[usize]) -> Result<(Vec<u8>, usize, bool), ChunkedError> {
    let (mut reader, mut scanner) = (ChunkedDecoder::new(), ChunkedDecoder::new());
    let (mut payload, mut used, mut ended) = (Vec::new(), 0, false);
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(sizes.last().copied().unwrap_or(usize::MAX)));
    while used < bytes.len() && !ended {
        let size = sizes.next().unwrap_or(1).clamp(1, bytes.len() - used);
        let mut part = &bytes[used..used + size];
        let scan = scanner.scan(part);
        let before = payload.len();
        let mut taken = 0;
        while !part.is_empty() && !ended {
            let piece = match reader.next(part) {
                Ok(piece) => piece,
                Err(error) => {
                    assert_eq!(scan, Err(error), "scanning and reading disagree");
                    return Err(error);
                }
            };
            payload.extend_from_slice(&part[piece.payload.clone()]);
            part = &part[piece.consumed..];
            taken += piece.consumed;
            ended = piece.ended;
        }
        assert_eq!(scan, Ok(Scan { consumed: taken, payload: payload.len() - before, ended }));
        used += taken;
    }
    assert_eq!(reader.payload_bytes(), payload.len() as u64);
    Ok((payload, used, ended))
}

#[test]
fn chunked_bodies_end_where_they_say_however_they_are_cut() {
    for (bytes, payload) in [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("000A\r\n0123456789\r\n1;a=\"b\"\r\n!\r\n00\r\n\r\n", "0123456789!"),
        ("1 ;ext\r\nx\r\n0\r\nChecksum: 7\r\nX-Other:\ty\r\n\r\n", "x"),
    ] {
        let with_more = format!("{bytes}GET / HTTP/1.1\r\n");
        for size in 1..with_more.len() {
            let read = read_chunked(with_more.as_bytes(), &[size]).unwrap();
            assert_eq!(read, (payload.as_bytes().to_vec(), bytes.len(), true), "{bytes:?} by {size}");
        }
    }
}

#[test]
fn what_goes_on_of_a_chunked_body_has_no_extensions_however_it_is_cut() {
    for (bytes, goes_on) in [
        ("0\r\n\r\n", "0\r\n\r\n"),
        ("5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        ("000A;x=y\r\n0123456789\r\n0;a=\"b;\"\r\n\r\n", "000A\r\n0123456789\r\n0\r\n\r\n"),
        ("1 \t; ext \r\nx\r\n0 ;\r\nX-Sum: 7\r\n\r\n", "1\r\nx\r\n0\r\nX-Sum: 7\r\n\r\n"),
    ] {
        let with_more = format!("{bytes}GET / HTTP/1.1\r\n");
        for size in 1..with_more.len() {
            let passed = pass_chunked(with_more.as_bytes(), &[size]).unwrap();
            assert_eq!(passed, (goes_on.as_bytes().to_vec(), bytes.len(), true), "{bytes:?} by {size}");
        }
    }
}

#[test]
fn chunked_bodies_that_could_end_in_two_places_are_refused() {
    let long_extension = format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(512));
    let only_extensions = "1;0123456789abcdef0123456789abcdef0123456789abcdef\r\nx\r\n".repeat(500);
    let long_trailer = format!("0\r\n{}\r\n", "X: y\r\n".repeat(3000));
    for (bytes, why) in [
        ("\r\n\r\n", ChunkedError::Size),
        ("x\r\n", ChunkedError::Size),
        ("-1\r\n", ChunkedError::Size),
        ("+1\r\n", ChunkedError::Size),
        ("0x1\r\nx\r\n", ChunkedError::Size),
        ("1 \r\nx\r\n", ChunkedError::Size),
        (" 1\r\nx\r\n", ChunkedError::Size),
        ("1_0\r\n", ChunkedError::Size),
        ("10000000000000000\r\n", ChunkedError::SizeOverflow),
        ("8000000000000000\r\n", ChunkedError::SizeOverflow),
        ("00000000000000001\r\nx\r\n0\r\n\r\n", ChunkedError::SizeOverflow),
        ("1\u{b}\r\nx\r\n", ChunkedError::Size),
        ("1;a\rb\r\nx\r\n", ChunkedError::LineEnd),
        ("5\r\nabc\r\n0\r\n\r\n", ChunkedError::DataEnd),
        ("2\r\nabc\r\n", ChunkedError::DataEnd),
        ("1\nx\r\n0\r\n\r\n", ChunkedError::Size),
        ("1\rx", ChunkedError::LineEnd),
        ("1;a\nx", ChunkedError::LineEnd),
        ("1;a\0\r\nx\r\n", ChunkedError::LineEnd),
        ("1\r\nxy\r\n", ChunkedError::DataEnd),
        ("1\r\nx\n0\r\n\r\n", ChunkedError::DataEnd),
        ("0\r\n\n", ChunkedError::Trailer),
        ("0\r\n\rx", ChunkedError::LineEnd),
        ("0\r\n folded\r\n\r\n", ChunkedError::Trailer),
        ("0\r\nName : x\r\n\r\n", ChunkedError::Trailer),
        ("0\r\nX: a\nb: c\r\n\r\n", ChunkedError::LineEnd),
        ("0\r\nContent-Length: 5\r\n\r\n", ChunkedError::TrailerForbidden),
        ("0\r\ntransfer-encoding: chunked\r\n\r\n", ChunkedError::TrailerForbidden),
        ("0\r\nHOST: a\r\n\r\n", ChunkedError::TrailerForbidden),
        ("0\r\nProxy-Authorization: a\r\n\r\n", ChunkedError::TrailerForbidden),
        ("0\r\nProxy-Something-That-Is-Very-Long-Indeed: a\r\n\r\n", ChunkedError::TrailerForbidden),
        ("0\r\nNo-Colon\r\n\r\n", ChunkedError::Trailer),
        ("0\r\nX: a\u{0}b\r\n\r\n", ChunkedError::LineEnd),
        (&long_extension, ChunkedError::ExtensionTooLong),
        (&only_extensions, ChunkedError::ExtensionTooLong),
        (&long_trailer, ChunkedError::TrailerTooLong),
    ] {
        for size in [1, 2, 3, usize::MAX] {
            assert_eq!(
                pass_chunked(bytes.as_bytes(), &[size]),
                Err(why),
                "{} by {size}",
                &bytes[..bytes.len().min(60)]
            );
            assert_eq!(
                read_chunked(bytes.as_bytes(), &[size]),
                Err(why),
                "{} by {size}",
                &bytes[..bytes.len().min(60)]
            );
        }
    }
}
