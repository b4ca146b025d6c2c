//! The record spool's file (`docs/formats/record-spool.md`): header and slots over shared memory. Who may touch a slot
//! when is said by its state; this module only knows how.

use crate::base::clock::Wall;
use crate::limits;
use crate::log::body::late_bytes_max;
use crate::log::body::late_of;
use crate::log::body::late_text;
use crate::log::body::read_body;
use crate::record::By;
use crate::record::CacheCode;
use crate::record::Ended;
use crate::record::Ending;
use crate::record::PeerCode;
use crate::record::Phase;
use crate::record::line::Entry;
use crate::record::text;
use crate::sys::map::SharedMap;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// What the fingerprint is made of: whoever changes the layout changes this.
const LAYOUT: &str = "header 4096; slot: state|len<<32, checksum, seq, upload, download, ended, elapsed, connect|first<<32, \
    status by phase cache peer bypassed, body: client_id started request_id cport iport caddr iaddr flags lens[24] texts[23]";
const MAGIC: u64 = u64::from_le_bytes(*b"TGSPOOL\0");
const FORMAT: u64 = 1;
const HEADER_BYTES: usize = 4096;
const HEADER_CHECKED_WORDS: usize = 8;
const SEQ_HIGH_WORD: usize = 9;
const OWNER_WORD: usize = 10;
const UNRECORDED_WORD: usize = 11;
pub(super) const NUMBER_WORDS: usize = 9;
/// What an ordinary record takes of its slot.
const NEAR_WORDS: usize = 64;

/// Number and size of the slots of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolSize {
    /// Slots for ordinary records.
    pub small_slots: u32,
    /// Their size in bytes, a multiple of 8.
    pub small_bytes: u32,
    /// Slots for any record.
    pub large_slots: u32,
    /// Their size in bytes, a multiple of 8.
    pub large_bytes: u32,
}

impl Default for SpoolSize {
    fn default() -> Self {
        SpoolSize {
            small_slots: limits::SPOOL_SMALL_SLOTS,
            small_bytes: limits::SPOOL_SMALL_SLOT_BYTES,
            large_slots: limits::SPOOL_LARGE_SLOTS,
            large_bytes: limits::SPOOL_LARGE_SLOT_BYTES,
        }
    }
}

impl SpoolSize {
    /// With so many slots for ordinary records, and the share of large ones that goes with them.
    pub fn with_slots(small_slots: u32) -> SpoolSize {
        let large_slots = small_slots.div_ceil(limits::SPOOL_SMALL_PER_LARGE);
        SpoolSize { small_slots, large_slots, ..SpoolSize::default() }
    }

    /// Slots of both classes; their numbers are `0..slots()`, the small ones first.
    pub fn slots(self) -> u32 {
        self.small_slots + self.large_slots
    }

    fn bytes(self) -> usize {
        let small = self.small_slots as usize * self.small_bytes as usize;
        HEADER_BYTES + small + self.large_slots as usize * self.large_bytes as usize
    }

    /// Whether the sizes of a header are possible at all.
    fn is_sane(self) -> bool {
        let classes = [(self.small_slots, self.small_bytes), (self.large_slots, self.large_bytes)];
        classes.iter().all(|(slots, bytes)| {
            *slots <= 1 << 24
                && bytes % 8 == 0
                && *bytes as usize >= limits::SPOOL_SLOT_FIXED_BYTES
                && *bytes <= 1 << 20
        })
    }
}

/// What a slot says of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// No record.
    Free = 0,
    /// A record whose exchange is under way.
    Open = 1,
    /// A record that waits for the writer.
    Closed = 2,
}

/// Why a file is not taken for a spool.
#[derive(Debug)]
pub enum BadSpool {
    /// Nothing was ever in it.
    Empty,
    /// In words, why it cannot be read.
    Unreadable(String),
    /// It could not be mapped.
    Io(io::Error),
}

/// One core's spool: the mapped file.
pub struct Spool {
    map: SharedMap,
    size: SpoolSize,
    boot: String,
    kernel_boot: [u8; 16],
}

impl Spool {
    /// Makes the file at `path` (beside, then renamed over).
    pub fn create(path: &Path, size: SpoolSize, boot: &str, kernel_boot: [u8; 16], seq_high: u64) -> io::Result<Spool> {
        let beside = path.with_extension("new");
        let _ = fs::remove_file(&beside); // a leftover of a killed predecessor
        let map = SharedMap::create(&beside, size.bytes(), 0o600)?;
        let words = map.words();
        for (word, value) in words.iter().zip(header(size, boot, kernel_boot)) {
            word.store(value, Ordering::Relaxed);
        }
        words[OWNER_WORD].store(u64::from(std::process::id()), Ordering::Relaxed);
        words[SEQ_HIGH_WORD].store(seq_high, Ordering::Release);
        // Before it has its name: who finds it there and can lock it knows that this process is gone.
        if !map.lock()? {
            return Err(io::Error::other("somebody else has locked the new file"));
        }
        fs::rename(&beside, path)?;
        Ok(Spool { map, size, boot: boot.to_string(), kernel_boot })
    }

    /// Opens a predecessor's file and checks its header.
    pub fn open(path: &Path) -> Result<Spool, BadSpool> {
        let unreadable = |words: &str| BadSpool::Unreadable(words.to_string());
        let length = fs::metadata(path).map_err(BadSpool::Io)?.len();
        if length < HEADER_BYTES as u64 {
            return Err(if length == 0 { BadSpool::Empty } else { unreadable("it is shorter than its header") });
        }
        let map = SharedMap::open(path).map_err(BadSpool::Io)?;
        let mut head = [0; HEADER_CHECKED_WORDS + 1];
        head.iter_mut().zip(map.words()).for_each(|(value, word)| *value = word.load(Ordering::Acquire));
        if head.iter().all(|word| *word == 0) && map.words().iter().all(|word| word.load(Ordering::Relaxed) == 0) {
            return Err(BadSpool::Empty);
        }
        if head[0] != MAGIC {
            return Err(unreadable("it is not a record spool (wrong magic)"));
        }
        if head[1] != format_word() {
            return Err(unreadable("it is a record spool of another version of Tidegate"));
        }
        if head[HEADER_CHECKED_WORDS] != header_checksum(&head[..HEADER_CHECKED_WORDS]) {
            return Err(unreadable("its header is damaged"));
        }
        let (low, high) = (|word: u64| word as u32, |word: u64| (word >> 32) as u32);
        let size = SpoolSize {
            small_slots: low(head[2]),
            small_bytes: high(head[2]),
            large_slots: low(head[3]),
            large_bytes: high(head[3]),
        };
        if !size.is_sane() || map.words().len() < size.bytes() / 8 {
            return Err(unreadable("it is shorter than its header says"));
        }
        let tag = [head[4].to_le_bytes(), head[5].to_le_bytes()].concat();
        let boot = String::from_utf8_lossy(&tag).trim_end_matches('\0').to_string();
        let mut kernel_boot = [0; 16];
        kernel_boot[..8].copy_from_slice(&head[6].to_le_bytes());
        kernel_boot[8..].copy_from_slice(&head[7].to_le_bytes());
        Ok(Spool { map, size, boot, kernel_boot })
    }

    /// Number and size of its slots.
    pub fn size(&self) -> SpoolSize {
        self.size
    }

    /// The last part of its records' ids.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// The kernel's boot id of the run that made it.
    pub fn kernel_boot(&self) -> [u8; 16] {
        self.kernel_boot
    }

    /// Whether the process that made it is gone, and nobody but this one uses it from now on.
    pub fn take_over(&self) -> bool {
        // A file system that knows no locks has no living predecessor either: there is no handing over on it.
        self.map.lock().unwrap_or(true)
    }

    /// The process that made it; 0 if it did not say.
    pub fn owner(&self) -> u32 {
        u32::try_from(self.map.words()[OWNER_WORD].load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// The highest `seq` given out, as noted here.
    pub fn seq_high(&self) -> u64 {
        self.map.words()[SEQ_HIGH_WORD].load(Ordering::Acquire)
    }

    /// Notes the highest `seq` given out.
    pub fn set_seq_high(&self, seq: u64) {
        self.map.words()[SEQ_HIGH_WORD].store(seq, Ordering::Release);
    }

    /// What [`unrecorded`](crate::log::unrecorded) counts.
    pub(super) fn unrecorded_words(&self) -> [&AtomicU64; 4] {
        std::array::from_fn(|index| &self.map.words()[UNRECORDED_WORD + index])
    }

    /// Whether a body of so many bytes fits a small slot, with the room for its late text if it has one.
    pub fn fits_small(&self, body: &[u8]) -> bool {
        let late = late_words(body) * 8;
        NUMBER_WORDS * 8 + body.len().next_multiple_of(8) + late <= self.size.small_bytes as usize
    }

    /// Fills a free slot and opens it. `body` is what [`write_body`] wrote, at most as long as the slot.
    pub fn fill(&self, slot: u32, body: &[u8], ended: &Ended) {
        let words = self.slot(slot);
        store_numbers(words, ended);
        words[2].store(0, Ordering::Relaxed);
        let mut sum = Checksum::of(body.len());
        let (whole, rest) = body.as_chunks::<8>();
        for (word, chunk) in words[NUMBER_WORDS..].iter().zip(whole) {
            let value = u64::from_le_bytes(*chunk);
            word.store(value, Ordering::Relaxed);
            sum.add(value);
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            words[NUMBER_WORDS + whole.len()].store(u64::from_le_bytes(last), Ordering::Relaxed);
            sum.add(u64::from_le_bytes(last));
        }
        if late_of(body).is_some()
            && let Some(word) = words.get(late_at(body.len()))
        {
            word.store(0, Ordering::Relaxed);
        }
        words[1].store(sum.value(), Ordering::Relaxed);
        words[0].store((body.len() as u64) << 32 | State::Open as u64, Ordering::Release);
    }

    /// Tells the late text of an open slot whose body has room for one: once, cut to its bound. The word that makes it count
    /// is stored last, so a kill at any instruction leaves it out or whole.
    pub fn tell_late(&self, slot: u32, text: &[u8]) {
        let text = &text[..text.len().min(limits::SERVER_NAME_BYTES_MAX)];
        let words = self.slot(slot);
        let Some([head, room @ ..]) = words.get(late_at(self.body_bytes(slot))..) else { return };
        for (word, chunk) in room.iter().zip(text.chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        head.store(text.len() as u64 | late_checksum(text) << 32, Ordering::Release);
    }

    /// The late text of a slot whose body (`body`) has room for one; empty if none was told, or if it does not check.
    pub fn late<'t>(&self, slot: u32, body: &[u8], text: &'t mut [u8; LATE_BYTES]) -> &'t [u8] {
        let words = self.slot(slot).get(late_at(body.len())..).unwrap_or_default();
        let (Some(late), [head, room @ ..]) = (late_of(body), words) else { return b"" };
        if words.len() < late_words(body) {
            return b"";
        }
        let head = head.load(Ordering::Acquire);
        let length = (head as u32 as usize).min(late_bytes_max(late));
        for (place, word) in text.as_chunks_mut::<8>().0.iter_mut().zip(room) {
            *place = word.load(Ordering::Relaxed).to_le_bytes();
        }
        let text = &text[..length];
        if head >> 32 == late_checksum(text) { text } else { b"" }
    }

    /// Patches the numbers of an open slot.
    pub fn patch(&self, slot: u32, ended: &Ended) {
        store_numbers(self.slot(slot), ended);
    }

    /// The numbers of a slot.
    pub fn numbers(&self, slot: u32) -> Ended {
        let words = self.slot(slot);
        let load = |index: usize| words[index].load(Ordering::Relaxed);
        let (times, codes) = (load(7), load(8).to_le_bytes());
        Ended {
            upload: load(3),
            download: load(4),
            ended_us: load(5) as i64,
            elapsed_us: load(6),
            connect_us: times as u32,
            first_byte_us: (times >> 32) as u32,
            status: u16::from_le_bytes([codes[0], codes[1]]),
            ending: Ending::new(By::from_byte(codes[2]), Phase::from_byte(codes[3])),
            cachecode: CacheCode::from_byte(codes[4]),
            peercode: PeerCode::from_byte(codes[5]),
            bypassed: codes[6] != 0,
        }
    }

    /// Moves a slot to `state`; what was stored before is seen by whoever sees the state.
    pub fn set_state(&self, slot: u32, state: State) {
        let word = &self.slot(slot)[0];
        let length = word.load(Ordering::Relaxed) & !0xffff_ffff;
        word.store(length | state as u64, Ordering::Release);
    }

    /// The state of a slot; a value no state has counts as free.
    pub fn state(&self, slot: u32) -> State {
        match self.slot(slot)[0].load(Ordering::Acquire) as u32 {
            1 => State::Open,
            2 => State::Closed,
            _ => State::Free,
        }
    }

    /// The `seq` that the writer gave the slot's record; 0 if none.
    pub fn seq(&self, slot: u32) -> u64 {
        self.slot(slot)[2].load(Ordering::Acquire)
    }

    /// Gives the slot's record its `seq`: before its line is appended.
    pub fn set_seq(&self, slot: u32, seq: u64) {
        self.slot(slot)[2].store(seq, Ordering::Release);
    }

    /// Reads the beginning of a slot whose turn is next, which a core has written: it comes from that core's cache while the one
    /// before is worked on.
    pub fn approach(&self, slot: u32) {
        let lines = self.slot(slot).iter().take(NEAR_WORDS).step_by(8);
        std::hint::black_box(lines.fold(0, |sum, word| sum ^ word.load(Ordering::Relaxed)));
    }

    /// Copies the body of a slot to `body`; what is no body is empty. For the slots of this run, which a core has just filled.
    pub fn copy_body(&self, slot: u32, body: &mut Vec<u8>) {
        let words = self.body_of(slot, body);
        for (word, place) in words.iter().zip(body.as_chunks_mut::<8>().0) {
            *place = word.load(Ordering::Relaxed).to_le_bytes();
        }
        body.truncate(self.body_bytes(slot));
    }

    /// The same for the slots of a predecessor: answers whether the checksum holds.
    pub fn recover_body(&self, slot: u32, body: &mut Vec<u8>) -> bool {
        self.copy_body(slot, body);
        let length = self.body_bytes(slot);
        let words = self.slot(slot);
        let mut sum = Checksum::of(length);
        let count = body.len().div_ceil(8);
        words[NUMBER_WORDS..NUMBER_WORDS + count].iter().for_each(|word| sum.add(word.load(Ordering::Relaxed)));
        body.len() == length && sum.value() == words[1].load(Ordering::Relaxed)
    }

    /// Frees all open slots of an exchange but the newest: a core that was killed while it wrote a record anew left two. Only for
    /// a spool whose core is gone.
    pub fn free_doubles(&self) {
        let mut seen: HashMap<(u64, u32), u32> = HashMap::new();
        let mut body = Vec::new();
        for slot in (0..self.size.slots()).filter(|slot| self.state(*slot) == State::Open) {
            if !self.recover_body(slot, &mut body) {
                continue;
            }
            let Some(entry) = read_body(&body) else { continue };
            let other = seen.entry((entry.client_id, entry.request_id)).or_insert(slot);
            if *other == slot {
                continue;
            }
            let newer = self.numbers(slot).ended_us >= self.numbers(*other).ended_us;
            let older = if newer { std::mem::replace(other, slot) } else { slot };
            self.set_state(older, State::Free);
        }
    }

    /// The length that a slot says its body has.
    fn body_bytes(&self, slot: u32) -> usize {
        (self.slot(slot)[0].load(Ordering::Acquire) >> 32) as usize
    }

    /// The words of a slot's body and as much room, in whole words; none if the slot says that they are more than it has.
    fn body_of(&self, slot: u32, body: &mut Vec<u8>) -> &[AtomicU64] {
        let words = &self.slot(slot)[NUMBER_WORDS..];
        let count = self.body_bytes(slot).div_ceil(8);
        let words = words.get(..count).unwrap_or_default();
        body.resize(words.len() * 8, 0);
        words
    }

    fn slot(&self, slot: u32) -> &[AtomicU64] {
        let (size, slot) = (self.size, slot as usize);
        let (small_slots, small_bytes) = (size.small_slots as usize, size.small_bytes as usize);
        let (start, bytes) = if slot < small_slots {
            (slot * small_bytes, small_bytes)
        } else {
            let large_bytes = size.large_bytes as usize;
            (small_slots * small_bytes + (slot - small_slots) * large_bytes, large_bytes)
        };
        &self.map.words()[(HEADER_BYTES + start) / 8..(HEADER_BYTES + start + bytes) / 8]
    }
}

/// Room for any late text in whole words.
pub const LATE_BYTES: usize = limits::SERVER_NAME_BYTES_MAX.next_multiple_of(8);

/// The room behind this body: a word for length and checksum, then the text.
fn late_words(body: &[u8]) -> usize {
    late_of(body).map_or(0, |late| 1 + late_bytes_max(late).div_ceil(8))
}

/// The word of a slot at which its late text begins, behind a body of so many bytes.
fn late_at(body_bytes: usize) -> usize {
    NUMBER_WORDS + body_bytes.div_ceil(8)
}

/// Never 0, so that what was not told does not check.
fn late_checksum(text: &[u8]) -> u64 {
    let mut sum = Checksum::of(text.len());
    text.iter().for_each(|byte| sum.add(u64::from(*byte)));
    sum.value() & 0xffff_ffff
}

/// Reads the body of a slot with the late text behind it.
pub fn read_record<'b>(spool: &Spool, slot: u32, body: &'b [u8], late: &'b mut [u8; LATE_BYTES]) -> Option<Entry<'b>> {
    let mut entry = read_body(body)?;
    if let Some(which) = entry.late {
        let told = spool.late(slot, body, late);
        if !told.is_empty() {
            entry.plain &= text::are_plain(told);
            entry.texts[late_text(which) as usize] = told;
        }
    }
    Some(entry)
}

fn store_numbers(words: &[AtomicU64], ended: &Ended) {
    let status = ended.status.to_le_bytes();
    let codes = [
        status[0],
        status[1],
        ended.ending.by.byte(),
        ended.ending.phase.byte(),
        ended.cachecode.byte(),
        ended.peercode.byte(),
        u8::from(ended.bypassed),
        0,
    ];
    let values = [
        ended.upload,
        ended.download,
        ended.ended_us as u64,
        ended.elapsed_us,
        u64::from(ended.connect_us) | u64::from(ended.first_byte_us) << 32,
        u64::from_le_bytes(codes),
    ];
    for (word, value) in words[3..NUMBER_WORDS].iter().zip(values) {
        word.store(value, Ordering::Relaxed);
    }
}

/// Tells a body from one that was written in part: not against malice, and so as quick as the stores beside it. Two lanes,
/// so that a multiplication need not wait for the one before.
struct Checksum([u64; 2]);

impl Checksum {
    fn of(length: usize) -> Checksum {
        Checksum([0x9e37_79b9_7f4a_7c15 ^ length as u64, 0xc2b2_ae3d_27d4_eb4f])
    }

    fn add(&mut self, word: u64) {
        let [first, second] = self.0;
        self.0 = [second, (first ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31)];
    }

    fn value(&self) -> u64 {
        // Never 0, so that a slot of zeros does not check.
        (self.0[0].rotate_left(17) ^ self.0[1]) | 1
    }
}

fn header(size: SpoolSize, boot: &str, kernel_boot: [u8; 16]) -> [u64; HEADER_CHECKED_WORDS + 1] {
    let mut tag = [0; 16];
    tag.iter_mut().zip(boot.bytes()).for_each(|(place, byte)| *place = byte);
    let [tag_low, tag_high] = halves(tag);
    let [kernel_low, kernel_high] = halves(kernel_boot);
    let mut words = [
        MAGIC,
        format_word(),
        u64::from(size.small_slots) | u64::from(size.small_bytes) << 32,
        u64::from(size.large_slots) | u64::from(size.large_bytes) << 32,
        tag_low,
        tag_high,
        kernel_low,
        kernel_high,
        0,
    ];
    words[HEADER_CHECKED_WORDS] = header_checksum(&words[..HEADER_CHECKED_WORDS]);
    words
}

fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let value = u128::from_le_bytes(bytes);
    [value as u64, (value >> 64) as u64]
}

fn format_word() -> u64 {
    let hash = blake3::hash(LAYOUT.as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    FORMAT | u64::from(u32::from_le_bytes([a, b, c, d])) << 32
}

fn header_checksum(words: &[u64]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    words.iter().for_each(|word| {
        hasher.update(&word.to_le_bytes());
    });
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Where a file goes that cannot be read: it is kept for whoever can.
pub fn set_aside(path: &Path) -> io::Result<std::path::PathBuf> {
    let aside = path.with_extension(format!("unreadable-{}", Wall::now().seconds()));
    fs::rename(path, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::body::write_body;
    use crate::record::Draft;
    use crate::record::Late;
    use crate::record::line::Text;

    pub(crate) const TINY: SpoolSize =
        SpoolSize { small_slots: 4, small_bytes: 1024, large_slots: 2, large_bytes: 32768 };

    #[test]
    fn a_slot_gives_back_what_was_put_in_also_to_a_successor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("core-0");
        let spool = Spool::create(&path, TINY, "bootbootbo", [7; 16], 41).unwrap();
        let agent = vec![b'a'; 5000];
        let draft =
            Draft { client_id: 3, request_id: 70_000, useragent: &agent, username: Some("ü"), ..Draft::default() };
        let mut body = Vec::new();
        write_body(&mut body, &Entry::from(&draft));
        assert!(!spool.fits_small(&body));
        let ended = Ended { upload: u64::MAX, status: 404, connect_us: 5, ending: Ending::DROPPED, ..Ended::default() };
        spool.fill(5, &body, &ended);
        drop(spool);
        let spool = Spool::open(&path).unwrap();
        assert_eq!((spool.boot(), spool.kernel_boot(), spool.seq_high()), ("bootbootbo", [7; 16], 41));
        let states: Vec<State> = (0..6).map(|slot| spool.state(slot)).collect();
        assert_eq!(states, [State::Free, State::Free, State::Free, State::Free, State::Free, State::Open]);
        let mut again = Vec::new();
        assert!(spool.recover_body(5, &mut again));
        let entry = read_body(&again).unwrap();
        assert_eq!((entry.client_id, entry.request_id, entry.named, entry.client), (3, 70_000, true, draft.client));
        assert_eq!(entry.texts[4].len(), 2048, "a long text is cut");
        assert!(entry.texts[4].ends_with(b"aaa..."));
        assert_eq!(spool.numbers(5), ended);
    }

    #[test]
    fn what_is_told_later_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("core-0");
        let spool = Spool::create(&path, TINY, "bootbootbo", [7; 16], 0).unwrap();
        let mut body = Vec::new();
        let sni = |spool: &Spool, slot| {
            let (mut again, mut late) = (Vec::new(), [0; LATE_BYTES]);
            assert!(spool.recover_body(slot, &mut again));
            let entry = read_record(spool, slot, &again, &mut late).unwrap();
            (String::from_utf8_lossy(entry.texts[Text::Sni as usize]).into_owned(), entry.plain)
        };
        // A slot that another record used before: nothing of it may show.
        write_body(&mut body, &Entry::from(&Draft { useragent: &[0x41; 800], ..Draft::default() }));
        spool.fill(1, &body, &Ended::default());
        for (length, name) in [(3, "a.test".to_string()), (8, "x".repeat(255)), (0, "-\u{1}-".to_string())] {
            let url = vec![b'u'; length];
            write_body(&mut body, &Entry::from(&Draft { url: &url, late: Some(Late::Sni), ..Draft::default() }));
            assert!(spool.fits_small(&body));
            spool.fill(1, &body, &Ended::default());
            assert_eq!(sni(&spool, 1), (String::new(), true), "nothing is told yet");
            spool.tell_late(1, name.as_bytes());
            assert_eq!(sni(&spool, 1), (name.clone(), !name.contains('\u{1}')));
            assert_eq!(sni(&Spool::open(&path).unwrap(), 1).0, name, "a successor reads it too");
            // Torn: a bit of the text, or of the word that counts it.
            let words = spool.slot(1);
            for at in [late_at(body.len()), late_at(body.len()) + 1] {
                let whole = words[at].fetch_xor(0x10, Ordering::Relaxed);
                assert_ne!(sni(&spool, 1).0, name);
                words[at].store(whole, Ordering::Relaxed);
            }
        }
        // Room that a small slot does not have.
        write_body(
            &mut body,
            &Entry::from(&Draft { useragent: &[0x41; 600], late: Some(Late::Sni), ..Draft::default() }),
        );
        assert!(!spool.fits_small(&body));
    }

    #[test]
    fn every_damaged_byte_of_the_header_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("core-0");
        drop(Spool::create(&path, TINY, "bootbootbo", [7; 16], 0).unwrap());
        let good = fs::read(&path).unwrap();
        for at in 0..72 {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            assert!(matches!(Spool::open(&path), Err(BadSpool::Unreadable(_))), "byte {at}");
        }
        fs::write(&path, &good[..good.len() - 8]).unwrap();
        assert!(matches!(Spool::open(&path), Err(BadSpool::Unreadable(_))));
        fs::write(&path, vec![0; good.len()]).unwrap();
        assert!(matches!(Spool::open(&path), Err(BadSpool::Empty)));
    }
}
