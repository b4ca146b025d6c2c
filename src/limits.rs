//! Every bound of the product, with its reason, and the relations between them, proven at compile time.
//!
//! Nothing a client, an origin, a slave or a file sends may make a node grow without bound (law 7): whoever adds an
//! input adds its limit here.

mod data_cores;
mod rollout;
mod spool;
mod tasks;

pub use data_cores::*;
pub use rollout::*;
pub use spool::*;
pub use tasks::*;

/// The longest request line we read, in bytes. RFC 9112 section 3 asks for at least 8,000 octets.
pub const REQUEST_LINE_BYTES_MAX: usize = 16 * 1024;
/// The longest message head (request or reply line plus all fields), in bytes.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The most header fields in one head.
pub const HEAD_FIELDS_MAX: usize = 256;
/// The most bytes of empty lines before a message that are skipped, as RFC 9112 section 2.2 asks for at least one.
pub const HEAD_LEADING_BYTES_MAX: usize = 8;

// wire: fields
/// The most options that all Connection fields of one head name together: each is compared with each field, and a head full of
/// options would cost a core milliseconds.
pub const CONNECTION_OPTIONS_MAX: u32 = 64;

// wire: bodies
/// The longest body, and the longest chunk, in bytes. Many programs count in signed 64-bit numbers: what is longer is negative to
/// them, and ends somewhere else than it does for us.
pub const BODY_BYTES_MAX: u64 = i64::MAX as u64;
/// The most hexadecimal digits of a chunk's size: what 64 bits need. Leading zeros beyond have no use but to find readers that
/// count differently.
pub const CHUNK_SIZE_DIGITS_MAX: usize = 16;
/// The most bytes of one chunk's size line: sixteen hexadecimal digits would do, the rest is for extensions that nobody
/// acts upon.
pub const CHUNK_LINE_BYTES_MAX: usize = 512;
/// The most bytes of extensions in all chunks of one body that exceed one in sixteen of the payload: else a client could
/// send a body that is nothing but extensions.
pub const CHUNK_EXTENSION_BYTES_MAX: u64 = 16 * 1024;
/// The most bytes of a trailer section.
pub const TRAILER_BYTES_MAX: usize = 16 * 1024;
/// The longest name of a host: RFC 1035 section 2.3.4 without the root label.
pub const HOST_BYTES_MAX: usize = 253;
/// The longest label of a host (RFC 1035 section 2.3.4).
pub const HOST_LABEL_BYTES_MAX: usize = 63;

// wire: balancers
/// The longest PROXY protocol header, in bytes: addresses and what a balancer says of a TLS connection, its client
/// certificate included, fit the buffer that heads are read into.
pub const PROXY_HEADER_BYTES_MAX: usize = HEAD_BUFFER_BYTES;
/// The longest unique id in one, in bytes (the specification's own bound).
pub const PROXY_UNIQUE_ID_BYTES_MAX: usize = 128;

/// The largest policy document an administrator may submit, in bytes: a list of a hundred thousand hosts fits inline,
/// longer lists belong in files.
pub const POLICY_DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The largest compiled snapshot a node accepts, in bytes.
pub const SNAPSHOT_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// The longest piece of a snapshot file, in bytes: the names of a group of slots (2,048, half of them used) are 40 KiB, so only a table
/// of very long names meets it. Small against an answer with pieces, so that answers are filled well.
pub const SNAPSHOT_PIECE_BYTES_MAX: usize = 256 * 1024;
/// What pieces of rules and documents have on average, in bytes: a rule is less than that, a piece costs 36 bytes to name.
pub const SNAPSHOT_REST_PIECE_BYTES: usize = 2 * 1024;
/// Pieces of a section: 1 GiB of slots is cut into 65,536.
pub const SNAPSHOT_PIECES_MAX: usize = 128 * 1024;
/// A manifest, in bytes: eight sections of 128 entries of 36 bytes are less.
pub const SNAPSHOT_MANIFEST_BYTES_MAX: usize = 64 * 1024;

/// The longest URL a record keeps, in bytes; what is longer is cut and ends in `...`.
pub const RECORD_URL_BYTES_MAX: usize = 8 * 1024;

// --- tls and cluster: port 8888 and what goes over it ---

/// The longest activation key file, in bytes: the key has 70 characters.
pub const ACTIVATION_KEY_FILE_BYTES_MAX: usize = 4 * 1024;
/// How long a former activation key may count after a change, in seconds: a month, so that no cluster forgets it open.
pub const ACTIVATION_KEY_WINDOW_S_MAX: i64 = 31 * 86_400;
/// The longest file of a node's own key, in bytes: its PEM has about 250.
pub const NODE_KEY_FILE_BYTES_MAX: u64 = 4 * 1024;
/// How long a resumption ticket of the cluster's port is good, in seconds; twice that at most. A slave that was away for longer
/// shows its certificate again. Far from the certificate's own end.
pub const CLUSTER_TICKET_LIFE_S: i64 = 6 * 3_600;
/// A node's cluster certificate lives this long, so that a node whose clock or minting fails still works over a weekend.
pub const CLUSTER_LEAF_LIFE_S: i64 = 7 * 86_400;
/// It is valid from this long before it was minted: clocks of two nodes may be that far apart.
pub const CLUSTER_LEAF_BACKDATED_S: i64 = 86_400;
/// It is minted anew after this.
pub const CLUSTER_LEAF_RENEWED_AFTER_S: i64 = 86_400;
/// Connections to port 8888 that have not finished their handshake. More wait in the kernel's queue.
pub const FRONT_HANDSHAKES_MAX: usize = 512;
/// A handshake (and, of plain HTTP, the redirect) must be over after this.
pub const FRONT_HANDSHAKE_MS: u64 = 5_000;
/// Open portal connections; more are closed at once. A count of its own, so that browsers never crowd out slaves.
pub const FRONT_PORTAL_CONNECTIONS_MAX: usize = 512;
/// Open cluster connections: a slave holds two.
pub const FRONT_CLUSTER_CONNECTIONS_MAX: usize = 4 * CLUSTER_NODES_MAX;
/// A request head on port 8888 must arrive within this; a kept-alive connection is closed after as much silence.
pub const FRONT_HEAD_MS: u64 = 30_000;
/// The same for a cluster connection, whose slave is silent while it has no records.
pub const CLUSTER_HEAD_MS: u64 = 180_000;
/// Addresses whose health checks are remembered: balancers come in pairs, and whoever asks from more addresses than this
/// only makes the oldest be forgotten.
pub const HEALTH_CHECKERS_MAX: usize = 64;
/// Who asked /health twice, the last time within this, watches the node: it gets DRAIN_NOTICE before a stop. Checks come
/// every second or so; every ten seconds is already slow.
pub const HEALTH_WATCHED_S: u64 = 10;
/// A data core that has not looked at its deadlines for this long does not turn, in milliseconds: it looks ten times a second.
pub const HEALTH_CORE_STILL_MS: u64 = 2_000;
/// Before listeners close, clients at work get this long to be told with an answer that their connection ends, in
/// milliseconds. Those who ask nothing in that time are closed as idle.
pub const DRAIN_TELL_MS_MAX: u64 = 1_000;
/// A request to a master this long ago still says that somebody takes it for a proxy, in seconds; longer, and a mended
/// balancer would be complained of.
pub const VERIFY_MISLED_S: i64 = 600;
/// How many of a master's own newest records are looked at for that.
pub const VERIFY_MISLED_ROWS: u32 = 100;
/// `tidegate lb --watch` asks the master this often, in milliseconds; after trouble it waits longer, up to [`LB_RETRY_S_MAX`].
pub const LB_LOOK_MS: u64 = 2_000;
/// The longest wait of `tidegate lb --watch` after trouble, in seconds.
pub const LB_RETRY_S_MAX: u64 = 60;
/// A master younger than this, in seconds, may not have heard of all its slaves yet (they come back within
/// [`CLUSTER_HOLD_MS_MAX`] and a few seconds of backoff): `tidegate lb --watch` takes nobody out by what it says.
pub const LB_SETTLE_S: u64 = 20;
/// A balancer's reload command is ended after this, in seconds.
pub const LB_RELOAD_S_MAX: u64 = 60;
/// The largest balancer configuration that is compared with what should be there, in bytes: a thousand slaves take a tenth.
pub const LB_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// `tidegate drain --wait` looks this often whether anybody is still served, in milliseconds.
pub const DRAIN_LOOK_MS: u64 = 250;
/// The note that a node is drained, in bytes: a name and a time.
pub const DRAIN_NOTE_BYTES_MAX: u64 = 4 * 1024;
/// A handler on port 8888 must have its answer's head ready after this.
pub const FRONT_ANSWER_MS: u64 = 60_000;
/// The same for the cluster service, whose long polls are bounded by SYNCTIME.
pub const CLUSTER_ANSWER_MS: u64 = 2 * CLUSTER_SYNCTIME_MS_MAX;

/// Nodes a master keeps in mind, refused ones included.
pub const CLUSTER_NODES_MAX: usize = 1_024;
/// Names of nodes that are bound to a key, also of nodes that are away. More are refused in words.
pub const CLUSTER_MEMBERS_MAX: usize = 4 * CLUSTER_NODES_MAX;
/// Removed nodes whose keys are barred; beyond that the ones longest removed are forgotten.
pub const CLUSTER_BARRED_MAX: usize = 4 * CLUSTER_NODES_MAX;
/// Refused addresses a master remembers to show them.
pub const CLUSTER_REFUSED_MAX: usize = 256;
/// How long a refused address is shown after its last attempt; slaves try every few seconds.
pub const CLUSTER_REFUSED_SHOWN_MS: u64 = 60_000;
/// How long after its last contact a node without an open poll keeps its name, so that a replaced machine gets in soon.
pub const CLUSTER_NAME_HELD_MS: u64 = 10_000;
/// The longest SYNCTIME a long poll is held for, whatever a slave asks.
pub const CLUSTER_SYNCTIME_MS_MAX: u64 = 300_000;
/// The shortest.
pub const CLUSTER_SYNCTIME_MS_MIN: u64 = 1_000;
/// The largest control message (hello, welcome, applied, statistics), in bytes.
pub const CLUSTER_MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The longest text inside one (a name, an address, an error), in bytes; longer ones are refused.
pub const CLUSTER_TEXT_BYTES_MAX: usize = 4 * 1024;
/// A connection to the master, its handshake included, must stand after this.
pub const CLUSTER_CONNECT_MS: u64 = 5_000;
/// A short request to the master must be answered after this.
pub const CLUSTER_REQUEST_MS: u64 = 10_000;
/// One answer with pieces of a snapshot must arrive within this: 1 MiB at 150 kbit/s.
pub const CLUSTER_PIECES_MS: u64 = 60_000;
/// Pieces that one request may ask for: 32 KiB of hashes.
pub const CLUSTER_PIECES_MAX: usize = 1_024;
/// Bytes of pieces in one answer, unpacked. What a slave or master holds of a snapshot on its way is a few times this, however
/// large the snapshot is; and what a link that breaks now and then loses of it is at most this.
pub const CLUSTER_PIECES_BYTES_MAX: usize = 1024 * 1024;
/// Packed answers that a master keeps, in bytes: slaves that had the same snapshot ask for the same pieces, and a hundred of them ask within a
/// second.
pub const CLUSTER_ANSWERS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Snapshots that a master holds ready in pieces: the current one, and one that slaves are still fetching.
pub const CLUSTER_OFFERED_MAX: usize = 2;
/// All cores must have swapped after this.
pub const CLUSTER_PUBLISH_MS: u64 = 30_000;
/// Waits between attempts to reach the master: the first, and the longest, so that a master that is back is noticed.
pub const CLUSTER_BACKOFF_MS_MIN: u64 = 200;
/// See above.
pub const CLUSTER_BACKOFF_MS_MAX: u64 = 5_000;
/// Sections of its own that a node may report: more than a policy has.
pub const LOCAL_SECTIONS_MAX: usize = 16;
/// Proxies that a reply to a poll names, for browsers that ask a node for the way: more than a browser would ever try.
pub const CLUSTER_PROXIES_MAX: usize = 64;
/// How old what slaves are told of the others may be, in milliseconds.
pub const CLUSTER_PROXIES_LOOK_MS: u64 = 1_000;
/// Snapshots a slave keeps on disk: the current one and those it could fall back to.
pub const HELD_SNAPSHOTS: usize = 3;
/// Clock skew that both sides warn of, milliseconds.
pub const CLOCK_SKEW_WARN_MS: i64 = 2_000;
/// The slave asks for polls this long at most, so that a master that vanished without a word is noticed, and its Nodes page
/// is never older, even with a long SYNCTIME.
pub const CLUSTER_HOLD_MS_MAX: u64 = 10_000;
/// How often a node writes its figures to performance.log, in milliseconds, and tells its master at least: often enough to see a
/// burst, and a thousand slaves still ask a master for no more than 200 answers a second.
pub const FIGURES_EVERY_MS: u64 = 5_000;
/// The interval of a node's history of figures, in seconds: a day is 96 bars, which a phone can show.
pub const HISTORY_STEP_S: i64 = 900;
/// How long that history is kept, in seconds: a day.
pub const HISTORY_KEPT_S: i64 = 86_400;
/// It is written each so many looks at the figures: a crash costs the charts ten seconds.
pub const HISTORY_WRITE_EVERY: u64 = 2;
/// Waits before a snapshot that could not be used is fetched again: the first, and the longest.
pub const CLUSTER_RETRY_MS_MIN: u64 = 500;
/// See above.
pub const CLUSTER_RETRY_MS_MAX: u64 = 60_000;
/// A slave's question about older policies must be answered after this, in milliseconds: the master may first have to open a snapshot with
/// millions of hosts.
pub const POLICY_ANSWER_MS: u64 = 30_000;
/// The largest such answer, in bytes: a document as JSON escapes it at worst, as for the control socket.
pub const POLICY_ANSWER_BYTES_MAX: usize = CONTROL_REQUEST_BYTES_MAX;
/// Such questions that a master answers at the same time; each may hold a document and a mapped snapshot.
pub const POLICY_QUESTIONS_MAX: usize = 4;
/// A batch must arrive, be stored and be acknowledged within this.
pub const CLUSTER_BATCH_MS: u64 = 60_000;
/// Batches that a master unpacks and stores at the same time.
pub const CLUSTER_INGESTS_MAX: usize = 4;
/// Batches on their way into a master's memory, in KiB on the wire, all together: sixteen of the largest, hundreds of usual ones.
pub const CLUSTER_INTAKE_KIB: u32 = 256 * 1024;
/// Compression of pieces of snapshots: they must be there within a second.
pub const SNAPSHOT_ZSTD_LEVEL: i32 = 3;
/// Compression of batches: log text shrinks tenfold at the lowest price.
pub const BATCH_ZSTD_LEVEL: i32 = 1;
/// Records in one batch to the master.
pub const BATCH_RECORDS_MAX: usize = 4_096;
/// Bytes of log lines that one batch is made of.
pub const BATCH_LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of a batch on the wire (compressed) and unpacked.
pub const BATCH_WIRE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// See above.
pub const BATCH_BYTES_MAX: usize = 128 * 1024 * 1024;
/// How long work that may share a processor with a data core computes before it pauses by itself, in microseconds: what a client may wait for it.
pub const BREATH_EVERY_US: u64 = 250;
/// For how long it pauses, in microseconds; the kernel adds some 50. The work takes a third longer, which nobody waits for.
pub const BREATH_US: u64 = 30;
/// How often the shipper looks for new records: with the time of a batch this stays under a second.
pub const SHIP_EVERY_MS: u64 = 200;

const _: () = assert!(BATCH_WIRE_BYTES_MAX / 1024 <= CLUSTER_INTAKE_KIB as usize);
const _: () = assert!(2 * BATCH_LINE_BYTES_MAX <= BATCH_WIRE_BYTES_MAX, "incompressible records still fit");
const _: () = assert!(CLUSTER_LEAF_RENEWED_AFTER_S + 2 * CLUSTER_TICKET_LIFE_S < CLUSTER_LEAF_LIFE_S);
const _: () = assert!(CLUSTER_SYNCTIME_MS_MIN < CLUSTER_SYNCTIME_MS_MAX);
const _: () = assert!(CLUSTER_BACKOFF_MS_MIN < CLUSTER_BACKOFF_MS_MAX);
const _: () = assert!(CLUSTER_TEXT_BYTES_MAX < CLUSTER_MESSAGE_BYTES_MAX);
const _: () = assert!(4 * SNAPSHOT_PIECE_BYTES_MAX <= CLUSTER_PIECES_BYTES_MAX, "an answer holds several pieces");
const _: () = assert!(32 * CLUSTER_PIECES_MAX <= CLUSTER_MESSAGE_BYTES_MAX, "a request for pieces is a message");
// --- daemon and demo ---------------------------------------------------------------------------------------------

/// The largest body the demo's origin sends or takes, in bytes.
pub const DEMO_BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The longest wait the demo's origin grants, in milliseconds.
pub const DEMO_SLOW_MS_MAX: u64 = 60_000;
/// The most slaves `tidegate demo` starts.
pub const DEMO_SLAVES_MAX: usize = 16;
/// The lowest port a demo's node is given.
pub const DEMO_PORT_MIN: u16 = 10_000;
/// How long a node may take to start before the demo gives up, in seconds.
pub const DEMO_START_S_MAX: u64 = 60;
/// How long a core may take to prepare or commit a snapshot before the swap is called off, in milliseconds.
pub const SWAP_MS_MAX: u64 = 5_000;
/// How often is looked whether a snapshot that was replaced is used any more, in milliseconds.
pub const SNAPSHOT_LET_GO_MS: u64 = 500;
/// How long comparing two policy documents may take, in milliseconds. Past it the difference is coarser (whole stretches instead of
/// lines), and still right: two documents of 4 MiB that share nothing would take minutes otherwise.
pub const POLICY_DIFF_MS: u64 = 2_000;
/// The most versions one look at the policy history answers.
pub const POLICY_LOG_ROWS_MAX: u32 = 1_000;
/// How long `verify` waits for a network answer or for its probe to reach the report, in milliseconds.
pub const VERIFY_MS_MAX: u64 = 10_000;
/// Accepted portal and cluster connections that wait for their task, which is a moment.
pub const ACCEPTED_QUEUE_MAX: usize = 64;
/// How often a core that stops accepting cancels its accept before it gives up on that: one that is just being woken needs another. The last
/// resort is the end of the process.
pub const ACCEPT_CANCELS_MAX: u32 = 200;
/// The pause between two of them, in milliseconds.
pub const ACCEPT_CANCEL_PAUSE_MS: u64 = 5;
/// How long a core's thread may take to end once it has drained, in milliseconds. The process goes on without it: it is about to end, or to
/// become another program.
pub const CORE_END_MS_MAX: u64 = 5_000;
/// Connections the kernel queues for a listener before it refuses more.
pub const LISTEN_BACKLOG: u32 = 4_096;
/// Listening sockets that a process takes from whoever started it: two for each of the most cores, and some of socket units.
pub const PASSED_LISTENERS_MAX: usize = 1_024;
/// How often the line for `systemctl status` is made anew, in milliseconds.
pub const STATUS_LINE_MS: u64 = 2_000;
/// How often the control threads give a sign of life, in milliseconds: well below half of any sensible WatchdogSec.
pub const CONTROL_TICK_MS: u64 = 200;
/// From the order to restart to the restart, in milliseconds: the answer to whoever asked goes out first.
pub const RESTART_ANSWER_MS: u64 = 150;
/// How long the control threads get to end when a node stands aside, in milliseconds. What they do not end is done again by the
/// successor: nothing there is half done after a crash either.
pub const ASIDE_TASKS_MS: u64 = 500;
/// How long a keeper waits for a node to stand aside before it kills it, in milliseconds: the cores' answers, the control threads and the
/// last lines of the log are in it.
pub const ASIDE_MS_MAX: u64 = 15_000;
/// How long a node that hangs gets to end by SIGABRT before its keeper kills it, in milliseconds.
pub const ABORT_MS: u64 = 1_000;
/// What a stop may take beyond DRAIN_TIME, in seconds: cutting, the last lines of the log, the last records to the master.
pub const STOP_EXTRA_S: u64 = 15;
/// startup.ini is looked at this often even if no notice of a change came, in seconds.
pub const PARAMS_LOOK_S: u64 = 30;
/// Old records are forgotten this often, in seconds.
pub const PRUNE_EVERY_S: u64 = 3 * 3_600;
/// At its end a node waits this long for its last records to be acknowledged, in milliseconds.
pub const SHIP_LAST_MS_MAX: u64 = 2_000;
/// A node waits this long for the spool's lock: its predecessor may be just ending. In milliseconds.
pub const SPOOL_LOCK_WAIT_MS: u64 = 5_000;

const _: () = assert!(REQUEST_LINE_BYTES_MAX < HEAD_BYTES_MAX, "a longest request line must leave room for fields");
const _: () = assert!(RECORD_URL_BYTES_MAX <= REQUEST_LINE_BYTES_MAX);

// --- policy --------------------------------------------------------------------------------------------------------

/// The most names one list of a policy may define (profiles, user groups, time profiles, request types, categories
/// each). A request's tags are fixed sets of this many bits, so that deciding allocates nothing.
pub const POLICY_NAMES_PER_LIST_MAX: usize = 256;
const _: () = assert!(POLICY_NAMES_PER_LIST_MAX & 63 == 0, "tags are whole 64-bit words");

/// The most groups of parent proxies a policy may define.
pub const POLICY_PARENT_GROUPS_MAX: usize = 64;
/// The most parent proxies of one group: all may be tried for one request.
pub const POLICY_PARENTS_PER_GROUP_MAX: usize = 16;
/// The most routes: whoever looks for the one that holds has a bit for each of them on its stack.
pub const POLICY_ROUTES_MAX: usize = 1024;

// --- startup params, control socket, administrators ----------------------------------------------------------------

/// The largest startup.ini we read, in bytes: ten times what the package installs.
pub const STARTUP_INI_BYTES_MAX: usize = 128 * 1024;
/// The longest value of a startup param, in bytes: the longest path Linux takes.
pub const STARTUP_VALUE_BYTES_MAX: usize = 4_096;
/// After so many faults the rest of a startup.ini is not looked at: it is not one.
pub const STARTUP_INI_FAULTS_MAX: usize = 100;
/// The longest name of an administrator, in bytes: an e-mail address fits.
pub const ADMIN_NAME_BYTES_MAX: usize = 128;
/// The shortest password, in characters.
pub const PASSWORD_CHARS_MIN: usize = 12;
/// The longest password, in bytes: longer ones cost hashing time and add nothing.
pub const PASSWORD_BYTES_MAX: usize = 256;
/// The longest request on the control socket, in bytes: a policy document whose every byte JSON must escape.
pub const CONTROL_REQUEST_BYTES_MAX: usize = 6 * POLICY_DOCUMENT_BYTES_MAX + 64 * 1024;
/// The longest answer on the control socket, in bytes: two documents in one diff, or the longest report.
pub const CONTROL_ANSWER_BYTES_MAX: usize = 4 * CONTROL_REQUEST_BYTES_MAX;
/// As much of a request is read from somebody who may not ask, in bytes: enough to answer politely.
pub const CONTROL_STRANGER_BYTES_MAX: usize = 64 * 1024;
/// Connections the control socket serves at once; further ones wait.
pub const CONTROL_CONNECTIONS_MAX: usize = 16;
/// How long a client of the control socket may take to send its request or to take its answer, in seconds.
pub const CONTROL_IDLE_S_MAX: u64 = 10;
/// How long the node may take to perform an action asked over the control socket, in seconds: compiling the largest
/// policy is the longest.
pub const CONTROL_ACTION_S_MAX: u64 = 120;
/// What a client may still send after its answer before its connection is closed, in bytes.
pub const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// So much of a tunnel's beginning is looked at in one go, in bytes: a browser's ClientHello as a rule; it stands on the stack.
pub const TUNNEL_LOOK_BYTES: usize = 4 * 1024;
/// The longest ClientHello, in bytes: browsers send 500 to 2,000 (a post-quantum key share is 1,200 of them), and a session ticket
/// may add some thousands. So much of a tunnel's beginning is looked at, and kept while it comes, at most.
pub const CLIENT_HELLO_BYTES_MAX: usize = 16 * 1024;
/// The most extensions of a ClientHello: browsers send about 20, and some 60 exist.
pub const CLIENT_HELLO_EXTENSIONS_MAX: usize = 128;
/// The longest name of a server in a ClientHello, in bytes: the longest a host may have (RFC 1035), which a record keeps whole.
pub const SERVER_NAME_BYTES_MAX: usize = 255;
/// How often the record of a running exchange is patched, in milliseconds: what a crash of the process loses of its numbers.
pub const TUNNEL_UPDATE_MS: u64 = 1_000;
/// The most characters of `details` in Proxy-Status: one or two sentences, as the page has them.
pub const PROXY_STATUS_DETAILS_CHARS_MAX: usize = 400;
/// Interim replies (1xx) that one request may get.
pub const INTERIM_REPLIES_MAX: usize = 32;

// --- records: spool, extended.log, store -----------------------------------------------------------------------------

/// The most bytes a record keeps of each text, in the order of `record::line::Text`: username, method, url, referer,
/// useragent, mime, filter_name, filtering_reason, peer, request_host, the lists time_profiles to download_types (eight)
/// and profiles, snapshot, rule, sni, tls. What is longer is cut and ends in `...`.
pub const RECORD_TEXT_BYTES_MAX: [usize; 23] = [
    256,
    64,
    RECORD_URL_BYTES_MAX,
    4096,
    2048,
    256,
    128,
    1024,
    256,
    256,
    1024,
    1024,
    1024,
    1024,
    1024,
    1024,
    1024,
    1024,
    1024,
    64,
    256,
    256,
    256,
];
/// The longest type of an answer, in bytes, that is told to a record opened before the answer came: nearly all are shorter. For
/// a longer one the record is written anew.
pub const LATE_MIME_BYTES_MAX: usize = 64;
/// The most exchanges under way that one answer lists: the oldest; the rest is counted.
pub const CONNECTIONS_SHOWN_MAX: usize = 1_000;
/// So many of them stand on the portal's page.
pub const PORTAL_CONNECTIONS_SHOWN: u32 = 200;
/// The most records the writer takes from the cores before it appends them in one write.
pub const LOG_APPEND_RECORDS_MAX: usize = 1024;
/// How often the spools of processes that stood aside are looked through, in milliseconds: a look touches every slot.
pub const LEFT_OVER_LOOK_MS: u64 = 200;
/// What a process that stood aside may take to end beyond DRAIN_TIME once it is told to, in seconds.
pub const LEFT_OVER_EXTRA_S: u64 = 5;
/// The number of the first spool file of a process that stood aside: above those of the most cores.
pub const LEFT_OVER_FILE_FIRST: u32 = 1_000;
/// Processes of one node that may live beside it to finish what was under way when they were succeeded. Were there more, the oldest is told to
/// end: a node that is restarted every minute must not pile up predecessors with tunnels of hours.
pub const LEFT_OVER_PROCESSES_MAX: usize = 8;
/// The writer's nap while records come. Each wake-up may interrupt a data core and finds its own memory gone from the
/// processor's caches: at 50,000 requests a second this many milliseconds collect 400 records.
pub const LOG_NAP_MS_MIN: u64 = 8;
/// The writer's longest nap when no record comes: what an idle node's first record waits for its line.
pub const LOG_NAP_MS_MAX: u64 = 16;
/// How soon a failed append or sync is tried again.
pub const LOG_RETRY_MS: u64 = 250;
/// The most lines a block of the log's chain seals. A reader holds one block: 64 KiB of fingerprints.
pub const LOG_CHAIN_BLOCK_LINES_MAX: usize = 4096;
/// The most lines that wait to be sealed, 16 bytes each: more than a second of them at the writer's full speed. Beyond that the log is
/// synced and sealed before more is appended.
pub const LOG_CHAIN_PENDING_MAX: usize = 256 * 1024;
/// How long an audit may read, in seconds; then it says that the range is too long. Less than an action may take.
pub const AUDIT_S_MAX: u64 = 100;
/// The most findings an audit lists; it counts the others.
pub const AUDIT_FINDINGS_MAX: usize = 200;
/// The most numbers between the first and the last record of a range that the audit of a store goes through, one bit each.
pub const AUDIT_RECORDS_MAX: u64 = 200_000_000;
/// How often it is looked for rotated files that may go, or are to be packed, if none was rotated meanwhile.
pub const LOG_RETENTION_MS: u64 = 60_000;
/// The file system of LOG_DIR is nearly full when less than one part in so many of it is free,
pub const LOG_FREE_SHARE: u64 = 20;
/// and less than so many bytes: of a large one, a twentieth is much. Then rotated files that are stored go early.
pub const LOG_FREE_BYTES: u64 = 1024 * 1024 * 1024;
/// How soon after a rotation that is done, and how often it is looked how much room there is.
pub const LOG_UPKEEP_MS: u64 = 1_000;
/// A packed file is compressed in frames of so many bytes: the most that is decompressed for a line in the middle, and that a
/// flipped bit costs.
pub const LOG_FRAME_BYTES: usize = 1024 * 1024;
/// A smaller file stays as it is: what would be saved is not worth a second kind of file.
pub const LOG_PACK_BYTES_MIN: u64 = 64 * 1024;
/// How hard rotated files are compressed: beyond this level a file takes several times as long and comes out little smaller.
pub const LOG_PACK_LEVEL: i32 = 3;
/// The most lines kept in memory for shipping, in bytes: at 60,000 requests a second about what comes between two syncs, and
/// what is under way to the master. Beyond that, shipping reads the file.
pub const LOG_RECENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The lines of one batch to the master stay together in memory up to this size, in bytes.
pub const LOG_CHUNK_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Lines up to this size are copied together into one batch; more go as they stand.
pub const LOG_RECENT_JOINED_BYTES: usize = 256 * 1024;
/// How long the cursor may lag behind the acknowledgements while there is more to ship, in milliseconds: after a crash
/// the master says what it has, so that only a look into the file is lost.
pub const LOG_CURSOR_MS: u64 = 1_000;
/// A search for a record in a file of extended.log ends so near to it, in bytes; the rest is read.
pub const LOG_APPROACH_BYTES: u64 = 256 * 1024;
/// Bytes of extended.log read at once for shipping.
pub const LOG_READ_BYTES: usize = 64 * 1024;
/// The longest line of extended.log that is read: the longest record with every byte escaped fits.
pub const LOG_LINE_BYTES_MAX: usize = 160 * 1024;
/// How much of the log's end is searched for records of a spool that may be older than the log (after a power failure).
pub const LOG_RECOVERY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The longest node name in a batch, in bytes.
pub const NODE_NAME_BYTES_MAX: usize = 255;
/// The most rows of a ranking, and the most newest records, that a report gives.
pub const REPORT_ROWS_MAX: u32 = 1000;
/// The most intervals of a report's series.
pub const REPORT_INTERVALS_MAX: usize = 120;
/// The most gaps a report lists.
pub const REPORT_GAPS_MAX: usize = 100;
/// Pages of the store's file that a connection to it keeps in memory, in KiB: the writer's fills within minutes of load, and stays.
pub const STORE_CACHE_KIB: i64 = 64 * 1024;
/// The most words (hosts, users, ...) whose numbers the store remembers between batches.
pub const STORE_WORDS_KEPT_MAX: usize = 100_000;
/// Readers of the store that may be open at once.
pub const STORE_READERS_MAX: usize = 4;
/// So many lines about damaged blocks of records go to the journal in so many milliseconds.
pub const STORE_DAMAGE_LINES: u32 = 10;
/// See above.
pub const STORE_DAMAGE_LINES_MS: u64 = 3_600_000;
/// A damaged store is mended at most once in so many milliseconds: that reads all rows of it, and what does not help need not be done with each batch.
pub const STORE_MEND_EVERY_MS: u64 = 600_000;
/// How many blocks of records the store looks at in one transaction when it forgets, so that ingest never waits long for it.
pub const STORE_PRUNE_BLOCKS: u32 = 64;
/// The most records of a block: enough that they pack well, few enough that one that is shown costs little to unpack.
pub const STORE_BLOCK_RECORDS_MAX: usize = 1024;
/// A node's last block with fewer records than this takes the next batch in.
pub const STORE_BLOCK_RECORDS_MIN: usize = 256;
/// The most time between the ends of two records of a block, in microseconds: a report of an hour reads little that is not asked for.
pub const STORE_BLOCK_SPAN_US: i64 = 3_600_000_000;
/// A block with so many bytes of text takes no more.
pub const STORE_BLOCK_BYTES_FULL: usize = 1024 * 1024;
/// The most bytes of a block that is unpacked: a full one and one more record of the longest.
pub const STORE_BLOCK_BYTES_MAX: usize = 2 * STORE_BLOCK_BYTES_FULL;

const fn sum(numbers: &[usize]) -> usize {
    let (mut total, mut index) = (0, 0);
    while index < numbers.len() {
        total += numbers[index];
        index += 1;
    }
    total
}
const _: () = assert!(
    SPOOL_SLOT_FIXED_BYTES + sum(&RECORD_TEXT_BYTES_MAX) + 16 + SERVER_NAME_BYTES_MAX
        <= SPOOL_LARGE_SLOT_BYTES as usize,
    "the longest record, and a server's name told later, must fit a large slot"
);
const _: () = assert!(
    4 * (sum(&RECORD_TEXT_BYTES_MAX) + RECORD_URL_BYTES_MAX) < LOG_LINE_BYTES_MAX + 16 * 1024,
    "the longest record must fit a line: every byte may become four, and hosts stand twice"
);
const _: () = assert!(
    LOG_CHUNK_BYTES_MAX + LOG_LINE_BYTES_MAX <= BATCH_LINE_BYTES_MAX && 4 * LOG_CHUNK_BYTES_MAX <= LOG_RECENT_BYTES_MAX,
    "a chunk is a batch, and several fit into memory"
);
/// The most entries of one list of a policy document (rules, addresses of an entry, hosts of a request type).
pub const POLICY_LIST_ENTRIES_MAX: usize = 4096;
/// The most hosts all categories of a policy hold together: their table and text stay well under the largest snapshot.
pub const POLICY_CATEGORY_HOSTS_MAX: usize = 8 * 1024 * 1024;
/// The largest file of hosts that a category may name, in bytes.
pub const POLICY_CATEGORY_FILE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The longest name in a policy (profile, group, category, rule), in bytes: it stands in every record.
pub const POLICY_NAME_BYTES_MAX: usize = 64;
/// The longest free text of a policy (comment, reason, title), in bytes.
pub const POLICY_TEXT_BYTES_MAX: usize = 1024;
/// The longest body of a template, in bytes.
pub const POLICY_TEMPLATE_BYTES_MAX: usize = 64 * 1024;
/// The most proxies that a browser is told to try, one after the other.
pub const PAC_PROXIES_MAX: usize = 16;
/// The longest script for browsers, in bytes; they take a megabyte and more, but fetch it at every start.
pub const PAC_BYTES_MAX: usize = 256 * 1024;
/// How long a browser may keep the script, in seconds.
pub const PAC_MAX_AGE_S: u64 = 300;
/// The longest regular expression, in bytes.
pub const POLICY_REGEX_PATTERN_BYTES_MAX: usize = 1024;
/// The most memory one regular expression may cost as an automaton, in bytes: what needs more is written differently.
pub const POLICY_REGEX_DFA_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The most regular expressions in one policy: their automata are far smaller than the bound above as a rule, and the snapshot's own bound
/// holds in any case.
pub const POLICY_REGEXES_MAX: usize = 1024;
/// The most memory of an automaton that looks for many regular expressions at once, in bytes: expressions that multiply each
/// other's states are split over several automata, or stay alone.
pub const POLICY_REGEX_SET_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The most such automata of a policy: each one of a field is a pass over a request's host or path.
pub const POLICY_REGEX_SETS_MAX: usize = 8;
/// How often it may fail to make one, for hosts and paths, and again for fields: a failure takes as long as filling the memory above.
pub const POLICY_REGEX_SET_FAILURES_MAX: usize = 8;
/// The most such automata for header fields: each is a pass over the field's value, for a request that has the field.
pub const POLICY_HEADER_SETS_MAX: usize = 64;
/// The most memory of all automata for header fields together, in bytes.
pub const POLICY_HEADER_SET_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most header tests of a type that tables answer; later ones are looked at one by one. Each place is a bit a type: 128 bytes a request.
pub const POLICY_HEADER_TESTS_IN_TABLES: usize = 4;
/// The most texts of header tests that tables answer, and the most bytes of them together. A byte costs 13 bytes of memory at most, a
/// text 160. A test with texts beyond is looked at by itself, if the request has the field.
pub const POLICY_HEADER_TEXTS_MAX: usize = 8192;
/// See [`POLICY_HEADER_TEXTS_MAX`].
pub const POLICY_HEADER_TEXT_BYTES_MAX: usize = 512 * 1024;
/// The most faults told about one document; who has more starts with these.
pub const POLICY_COMPLAINTS_MAX: usize = 100;
/// The longest walk through the host table of the categories. At half load a million hosts stay under 60.
pub const HOST_PROBES_MAX: usize = 256;
const _: () = assert!(HOST_BYTES_MAX <= u8::MAX as usize, "the host table keeps a name's length in one byte");
const _: () = assert!(POLICY_CATEGORY_HOSTS_MAX * (HOST_BYTES_MAX / 8) < SNAPSHOT_BYTES_MAX);
const _: () = assert!(POLICY_TEMPLATE_BYTES_MAX < POLICY_DOCUMENT_BYTES_MAX);
// --- the portal ----------------------------------------------------------------------------------------------------
/// Sessions of the portal at once. The one unused for longest makes room: logging in needs a password, so only
/// administrators can push each other out.
pub const PORTAL_SESSIONS_MAX: usize = 256;
/// Seconds after its last page view at which a session ends. Live updates do not count as views.
pub const PORTAL_SESSION_IDLE_SECONDS_MAX: u64 = 30 * 60;
/// Seconds after login at which a session ends, whatever it did.
pub const PORTAL_SESSION_SECONDS_MAX: u64 = 12 * 60 * 60;
/// Addresses, and names, whose failed logins are remembered. The one nearest to forgiven makes room.
pub const PORTAL_LOGIN_TABLE_MAX: usize = 4096;
/// Failed logins that one address (IPv4) or network (IPv6 /64) may make in a row.
pub const PORTAL_LOGIN_ADDRESS_BURST: u32 = 10;
/// Failed logins that one name may collect in a row, from all addresses that did not log in with it before.
pub const PORTAL_LOGIN_USER_BURST: u32 = 20;
/// Seconds after which one failed login is forgiven.
pub const PORTAL_LOGIN_FORGIVE_SECONDS: u64 = 30;
/// Passwords checked at the same time: the check is made to be slow and large in memory.
pub const PORTAL_LOGIN_CHECKS_MAX: usize = 2;
/// The longest administrator's name or password the login form takes, in bytes.
pub const PORTAL_LOGIN_FIELD_BYTES_MAX: usize = 256;
/// The largest form but the policy editor's, in bytes.
pub const PORTAL_FORM_BYTES_MAX: usize = 256 * 1024;
/// The largest form of the policy editor: a document of the largest size may triple when its bytes are percent-encoded.
pub const PORTAL_POLICY_FORM_BYTES_MAX: usize = 3 * POLICY_DOCUMENT_BYTES_MAX + PORTAL_FORM_BYTES_MAX;
/// Seconds that a request's body may take to arrive.
pub const PORTAL_BODY_SECONDS_MAX: u64 = 60;
/// Seconds that the node may take over an action before the page says that it is still at it.
pub const PORTAL_ACTION_SECONDS_MAX: u64 = 60;
/// Lines of a document or diff that get a number and a mark of their own; the rest follows as plain text.
pub const PORTAL_LINES_NUMBERED_MAX: usize = 20_000;
/// Complaints that a page lists; the rest is counted.
pub const PORTAL_COMPLAINTS_MAX: usize = 200;
/// Seconds that a restart is said to take once nothing is under way any more: the node's own start, and a page's next look.
pub const PORTAL_START_SECONDS: u64 = 2;
/// Versions that the history page lists.
pub const PORTAL_HISTORY_ROWS_MAX: u32 = 200;

const _: () = assert!(PORTAL_SESSION_IDLE_SECONDS_MAX < PORTAL_SESSION_SECONDS_MAX);
const _: () = assert!(PORTAL_POLICY_FORM_BYTES_MAX > 3 * POLICY_DOCUMENT_BYTES_MAX);
