//! What must hold for every policy document, startup.ini, line of extended.log, batch, message of the cluster and answer of a
//! name server, whoever made it up. See `properties.rs`.

use tidegate::cluster::protocol;
use tidegate::policy;
use tidegate::policy::Snapshot;
use tidegate::proxy::addresses_in;
use tidegate::record::batch;
use tidegate::record::line;
use tidegate::record::lines;
use tidegate::settings;
use tidegate::store::records::block;
use tidegate::store::records::block::Block;
use tidegate::store::records::block::Details;
use tidegate::store::records::seal::Head;
use tidegate::store::records::seal::Packer;
use tidegate::store::records::seal::Part;

/// The first byte chooses the family that was asked for: only its addresses are taken from an answer, only as many as are
/// dialled, and for no longer than anything is believed.
pub fn dns_answer(bytes: &[u8]) {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let v6 = first % 2 == 1;
    let Some((addresses, seconds)) = addresses_in(bytes, v6) else { return };
    assert!(addresses.len() <= tidegate::limits::DIAL_ADDRESSES_MAX);
    assert!(addresses.iter().all(|address| address.is_ipv6() == v6), "{addresses:?}");
    assert!(seconds <= tidegate::limits::RESOLVER_FOUND_S_MAX);
}

/// The quick check of a line and the reader that makes a record of it agree, and the number is where it is looked for.
pub fn record_line(bytes: &[u8]) {
    let parsed = line::parse(bytes);
    assert_eq!(lines::check(bytes).ok(), parsed.as_ref().ok().map(|record| record.seq), "{}", bytes.escape_ascii());
    if let Ok(record) = parsed {
        assert_eq!(line::seq_of(bytes.strip_suffix(b"\n").unwrap_or(bytes)), Some(record.seq));
    }
}

/// A batch is read or refused, and so is one whose header is right and whose lines are anything.
pub fn record_batch(bytes: &[u8]) {
    let _ = batch::decode(bytes);
    let mut collected = lines::Lines::of(&[]);
    for (place, line) in bytes.split_inclusive(|byte| *byte == b'\n').take(1_000).enumerate() {
        collected.push(line, place as u64 + 1);
    }
    let Ok(made) = batch::encode("fuzz", tidegate::record::Epoch([7; 16]), &collected) else { return };
    if let Ok(read) = batch::decode(&made) {
        assert_eq!(read.records.len(), collected.len());
        assert!(read.records.windows(2).all(|two| two[0].seq < two[1].seq));
    }
}

/// A block of the record store, as it stands or packed anew, is read or refused; what is read says the same when it is written again.
/// For the latter the first two bytes are the length of its facts.
pub fn record_block(bytes: &[u8]) {
    let (mut packer, head) = (Packer::new().expect("a packer"), Head::default());
    let mut pack = |part, raw: &[u8]| packer.pack(part, &head, raw).expect("a frame");
    let packed = (pack(Part::Facts, bytes), pack(Part::Details, bytes));
    for (facts, details) in [(bytes, bytes), (&packed.0[..], &packed.1[..])] {
        let mut read = Vec::new();
        let known = block::read_facts(&head, facts, &mut read);
        assert!(read.len() <= tidegate::limits::STORE_BLOCK_RECORDS_MAX || known.is_err());
        if let Ok(details) = Details::read(&head, details) {
            // One more than any has.
            (0..=tidegate::limits::STORE_BLOCK_RECORDS_MAX).step_by(100).for_each(|at| drop(details.row(at)));
        }
    }
    let Some((length, bytes)) = bytes.split_first_chunk::<2>() else { return };
    let Some((facts, details)) = bytes.split_at_checked(u16::from_le_bytes(*length) as usize) else { return };
    let (facts, details) = (pack(Part::Facts, facts), pack(Part::Details, details));
    if let Ok(block) = Block::read(&head, &facts, &details) {
        let (facts, details) = block.pack(&mut packer, 1).expect("what was read packs");
        assert_eq!(Block::read(&block.head(1), &facts, &details), Ok(block));
    }
}

/// A document compiles to a snapshot that every node opens, and to the same one again, or says what is wrong with it.
pub fn policy_document(bytes: &[u8]) {
    let Ok(document) = std::str::from_utf8(bytes) else { return };
    match policy::compile(document, 1, &policy::NoFiles) {
        Err(complaints) => assert!(!complaints.is_empty()),
        Ok(file) => {
            let snapshot = Snapshot::open(&file).expect("what was compiled opens");
            assert_eq!(snapshot.document(), document);
            assert_eq!(policy::compile(document, 1, &policy::NoFiles).as_ref(), Ok(&file));
            let _ = snapshot.rights([192, 0, 2, 7].into());
            let _ = snapshot.proxy_script([192, 0, 2, 7].into(), &[]);
        }
    }
}

/// A message of the cluster is read or refused, and what was read says the same when it is written again.
pub fn cluster_message(bytes: &[u8]) {
    fn holds<M: protocol::Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        let Ok(message) = protocol::decode::<M>(bytes) else { return };
        let again = protocol::encode(&message);
        if again.len() <= tidegate::limits::CLUSTER_MESSAGE_BYTES_MAX {
            assert_eq!(protocol::decode::<M>(&again), Ok(message));
        }
    }
    holds::<protocol::Hello>(bytes);
    holds::<protocol::HelloReply>(bytes);
    holds::<protocol::Poll>(bytes);
    holds::<protocol::PollReply>(bytes);
    holds::<protocol::Stored>(bytes);
    let _ = protocol::build_of(bytes);
}

/// startup.ini is understood or complained of; written again, it says the same.
pub fn startup_ini(bytes: &[u8]) {
    let (said, faults) = settings::parse(bytes);
    let meant = settings::resolve(&said, "fuzz.test");
    if !faults.is_empty() || meant.is_err() {
        return;
    }
    let (again, faults) = settings::parse(settings::render(&said).as_bytes());
    assert_eq!(faults, []);
    assert_eq!(settings::resolve(&again, "fuzz.test"), meant);
}
