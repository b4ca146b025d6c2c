//! Which exchanges are under way: the open slots of the cores' spools, read from outside while the cores write them.

use crate::log::desk::Shared;
use crate::log::slots;
use crate::log::slots::LATE_BYTES;
use crate::log::slots::State;
use crate::record::Ended;
use crate::record::Phase;
use crate::record::line::Entry;
use crate::record::line::Text;
use crate::record::under_way::Exchange;
use crate::record::under_way::UnderWay;
use std::sync::Arc;

/// A look at the spools, from any thread. Takes no lock: a slot that is filled anew while it is read does not check, and is left out.
#[derive(Clone)]
pub struct InFlight(Arc<[Arc<Shared>]>);

impl InFlight {
    pub(crate) fn new(cores: &[Arc<Shared>]) -> InFlight {
        InFlight(cores.into())
    }

    /// Records that have ended and that the log's writer has not taken yet.
    pub fn waiting(&self) -> u64 {
        self.0.iter().map(|shared| shared.closed.waiting() as u64).sum()
    }

    /// What each core shares with the writer.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &Shared> {
        self.0.iter().map(Arc::as_ref)
    }

    /// At most `limit` exchanges, and how many there are. Looks at the state of each slot: not for the data path.
    pub fn look(&self, limit: usize) -> UnderWay {
        let (mut body, mut late) = (Vec::new(), [0; LATE_BYTES]);
        let mut open = Vec::new();
        for shared in self.0.iter() {
            let spool = &shared.spool;
            for slot in (0..spool.size().slots()).filter(|slot| spool.state(*slot) == State::Open) {
                if spool.recover_body(slot, &mut body)
                    && let Some(entry) = slots::read_record(spool, slot, &body, &mut late)
                {
                    open.push((entry.started_us, shared, slot));
                }
            }
        }
        let count = open.len() as u64;
        open.sort_by_key(|(started_us, ..)| *started_us);
        open.truncate(limit);
        let oldest = open.into_iter().filter_map(|(_, shared, slot)| {
            let spool = &shared.spool;
            // It may have ended meanwhile.
            let whole = spool.recover_body(slot, &mut body) && spool.state(slot) == State::Open;
            let entry = slots::read_record(spool, slot, &body, &mut late).filter(|_| whole)?;
            Some(exchange(&entry, &spool.numbers(slot)))
        });
        UnderWay { count, oldest: oldest.collect() }
    }
}

fn exchange(entry: &Entry, ended: &Ended) -> Exchange {
    let text = |which: Text| String::from_utf8_lossy(entry.texts[which as usize]).into_owned();
    Exchange {
        client_id: entry.client_id,
        request_id: entry.request_id,
        started_us: entry.started_us,
        client: entry.client.to_string(),
        user: text(Text::Username),
        method: text(Text::Method),
        url: text(Text::Url),
        peer: text(Text::Peer),
        rule: text(Text::Rule),
        phase: words(ended.ending.phase).to_string(),
        upload: ended.upload,
        download: ended.download,
    }
}

fn words(phase: Phase) -> &'static str {
    match phase {
        Phase::Request => "reading the request",
        Phase::Queue | Phase::Connect => "connecting",
        Phase::Headers => "waiting for the answer",
        Phase::Data | Phase::Complete => "transferring",
        Phase::Last => "sending the rest",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::desk::RecordDesk;
    use crate::log::slots::Spool;
    use crate::log::slots::SpoolSize;
    use crate::record::Draft;
    use crate::record::Ending;
    use crate::record::Late;

    const TINY: SpoolSize = SpoolSize { small_slots: 3, small_bytes: 1024, large_slots: 2, large_bytes: 32768 };

    #[test]
    fn what_is_open_is_under_way_and_a_record_written_anew_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("core-0");
        let spool = Spool::create(&path, TINY, "bootbootbo", [0; 16], 0).unwrap();
        let (mut desk, shared) = RecordDesk::new(spool, 0, 1);
        let look = InFlight::new(&[shared]);
        let waiting = Ended { ending: Ending::running(Phase::Headers), ended_us: 5, ..Ended::default() };
        let draft = |id, started_us| Draft { client_id: id, started_us, late: Some(Late::Mime), ..Draft::default() };
        let mut first = desk.open(&draft(1, 20), &waiting).unwrap();
        let second = desk.open(&draft(2, 10), &waiting).unwrap();
        let ids = |looked: &UnderWay| looked.oldest.iter().map(|one| one.client_id).collect::<Vec<_>>();
        let looked = look.look(10);
        assert_eq!((looked.count, ids(&looked)), (2, vec![2, 1]), "oldest first");
        assert_eq!(looked.oldest[0].phase, "waiting for the answer");
        assert_eq!((look.look(1).count, ids(&look.look(1))), (2, vec![2]));
        let denied = Draft { filter_name: "dlp", ..draft(1, 20) };
        desk.rewrite(&mut first, &denied, &Ended { ended_us: 6, ..waiting }).unwrap();
        assert_eq!((look.look(10).count, desk.slots().1), (2, 3), "its first slot is free again");
        second.close(&waiting);
        assert_eq!(ids(&look.look(10)), [1]);
    }

    #[test]
    fn of_two_slots_of_one_exchange_a_successor_keeps_the_newer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("core-0");
        let spool = Spool::create(&path, TINY, "bootbootbo", [0; 16], 0).unwrap();
        let (mut desk, _shared) = RecordDesk::new(spool, 0, 1);
        let ended = |ended_us| Ended { ended_us, ..Ended::default() };
        // As a kill between the two stores of a rewrite leaves it, either way round.
        let draft = |client_id| Draft { client_id, request_id: 1, ..Draft::default() };
        let _open = [(7, 1), (7, 2), (8, 4), (8, 3)].map(|(id, at)| desk.open(&draft(id), &ended(at)).unwrap());
        let spool = Spool::open(&path).unwrap();
        spool.free_doubles();
        let open: Vec<i64> =
            (0..5).filter(|slot| spool.state(*slot) == State::Open).map(|slot| spool.numbers(slot).ended_us).collect();
        assert_eq!(open, [2, 4]);
    }
}
