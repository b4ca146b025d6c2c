//! The compiled, immutable form of a policy document: a header, then an archive that is read in place.

pub mod body;
mod cut;
pub mod header;
pub mod hosts;
pub mod manifest;

use super::address_table::AddressTable;
use super::compile;
use super::decision::Bits;
use super::decision::ListKind;
use super::decision::Rights;
use super::decision::RuleId;
use super::decision::Tags;
use super::decision::TemplateId;
use super::files::NoFiles;
use super::own::OwnSections;
use super::pac;
use super::pac::Choice;
use super::pac::NoScript;
use super::page;
use super::page::BlockFacts;
use super::page::Page;
use super::patterns::Pattern;
use super::regex_sets::HeaderSet;
use super::regex_sets::RegexSets;
use super::route_table::RouteTable;
use super::rule_sets::RuleSets;
use super::sections::access_restriction::Admission;
use super::sections::client_address::Believed;
use super::sections::client_address::Told;
use super::sections::parents::ParentGroup;
use super::sections::parents::RouteTo;
use super::sections::time_profiles;
use super::type_tables::TypeTables;
use crate::base::archive::StableBytes;
use crate::base::archive::Verified;
use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::settings::LocalSection;
use crate::sys::map::ReadMap;
use body::ArchivedBody;
use body::ArchivedClientAddress;
use body::ArchivedNetwork;
use body::ArchivedRule;
use body::Body;
use header::Header;
use header::RestDigest;
pub use header::SnapshotError;
use jiff::tz::TimeZone;
use manifest::Pieces;
use manifest::Place;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// What a node enforces before it has ever had a policy.
const BUILTIN: &str =
    "# The policy of a node that has none yet: every client is denied. Apply a policy to change that.\n";

/// A policy, compiled and verified. Shared in an `Arc`; nothing in it changes.
pub struct Snapshot {
    header: [u8; header::HEADER_BYTES],
    archive: Verified<Body>,
    /// Whether the whole hash was checked.
    proven: bool,
    version: u64,
    hash: [u8; 32],
    name: String,
    patterns: Vec<Pattern>,
    zones: Vec<TimeZone>,
    addresses: AddressTable,
    types: TypeTables,
    rules: RuleSets,
    routes: RouteTable,
    own: Option<Arc<OwnSections>>,
}

/// A snapshot file of `body`.
pub(super) fn write(version: u64, body: &Body) -> Result<Vec<u8>, String> {
    let archive = rkyv::to_bytes::<rkyv::rancor::Error>(body).map_err(|error| error.to_string())?;
    let bytes = header::HEADER_BYTES + archive.len();
    if bytes > SNAPSHOT_BYTES_MAX {
        return Err(format!("the snapshot would have {bytes} bytes; {SNAPSHOT_BYTES_MAX} are accepted"));
    }
    let mut file = Vec::with_capacity(bytes);
    let archived = rkyv::access::<ArchivedBody, rkyv::rancor::Error>(&archive).map_err(|error| error.to_string())?;
    file.extend_from_slice(&header::write(version, &archive, &rest_digest(archived, &archive)));
    file.extend_from_slice(&archive);
    Ok(file)
}

impl Snapshot {
    /// Verifies `bytes` (header, hash, archive, invariants) and makes them ready for decisions.
    pub fn open(bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
        let (header, body) = header::read(bytes)?;
        let archive = Verified::<Body>::check(body).map_err(SnapshotError::BadArchive)?;
        archive.get().check().map_err(SnapshotError::BadContent)?;
        Snapshot::of(archive, header, true)
    }

    /// Opens a snapshot file that this node has verified and stored before, where it stands: mapped, not read. What is checked
    /// at once is all that could let a damaged file crash a node or change a rule: the header, the archive's structure,
    /// its invariants, and the digest of everything but the slots and names of the categories' host table. Lookups in that
    /// table check every bound. Its own hash is left to [`Snapshot::prove`], which takes time in proportion to it.
    pub fn open_held(path: &Path) -> Result<Snapshot, OpenError> {
        let map = ReadMap::open(path, SNAPSHOT_BYTES_MAX).map_err(OpenError::File)?;
        let (header, _) = header::read_unproven(map.bytes())?;
        let archive =
            Verified::<Body>::adopt(Box::new(map), header::HEADER_BYTES).map_err(SnapshotError::BadArchive)?;
        archive.get().check_rest().map_err(SnapshotError::BadContent)?;
        match header.rest {
            Some(rest) if rest == rest_digest(archive.get(), archive.bytes()) => {}
            Some(_) => return Err(SnapshotError::BodyDamaged.into()),
            // A file of a version that wrote none: proven here.
            None => {
                header::prove(header.version, &header.hash, archive.bytes())?;
                archive.get().check().map_err(SnapshotError::BadContent)?;
            }
        }
        let proven = header.rest.is_none();
        Ok(Snapshot::of(archive, header, proven)?)
    }

    /// Checks what [`Snapshot::open_held`] has left: the hash over everything, and every slot of the host table. Takes about half a
    /// second for five million hosts: not on a thread that others wait for.
    pub fn prove(&self) -> Result<(), SnapshotError> {
        if self.proven {
            return Ok(());
        }
        header::prove(self.version, &self.hash, self.archive.bytes())?;
        self.body().hosts.check_slots().map_err(SnapshotError::BadContent)
    }

    fn of(archive: Verified<Body>, header: Header, proven: bool) -> Result<Snapshot, SnapshotError> {
        let regexes = archive.get().regexes.iter();
        let patterns = regexes.map(|bytes| Pattern::load(bytes)).collect::<Result<_, _>>();
        let zones = archive.get().zones.iter().map(|zone| {
            let unknown = || SnapshotError::UnknownZone { zone: zone.to_string() };
            time_profiles::load_zone(zone).ok_or_else(unknown)
        });
        let zones = zones.collect::<Result<_, _>>()?;
        let name = format!("{}-{}", header.version, hex(&header.hash[..6]));
        let patterns = patterns.map_err(SnapshotError::BadRegex)?;
        let addresses = AddressTable::new(&archive.get().access);
        let request_types = &archive.get().request_types;
        let sets = |of_host| {
            RegexSets::load(&archive.get().regex_sets, of_host, request_types.len()).map_err(SnapshotError::BadRegex)
        };
        let header_sets = archive.get().header_sets.iter().map(|set| HeaderSet::load(set, request_types));
        let header_sets = header_sets.collect::<Result<_, _>>().map_err(SnapshotError::BadRegex)?;
        let types = TypeTables::new(request_types, sets(true)?, sets(false)?, header_sets);
        let rules = RuleSets::new(&archive.get().access_profiles);
        let routes = RouteTable::new(&archive.get().routes);
        let (version, hash) = (header.version, header.hash);
        Ok(Snapshot {
            header: header.bytes,
            archive,
            proven,
            version,
            hash,
            name,
            patterns,
            zones,
            addresses,
            types,
            rules,
            routes,
            own: None,
        })
    }

    /// The policy of a node that has none yet: version 0, denies everything.
    pub fn builtin() -> Snapshot {
        let file = compile::compile(BUILTIN, 0, &NoFiles).unwrap_or_default();
        Snapshot::open(&file).expect("the built-in document is a constant, and tests compile and open it")
    }

    /// The name for people: version and the first 12 hex digits of the hash, such as `12-3fa9c1d2e0b4`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The policy version; 0 is the built-in policy.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// BLAKE3 over version and archive: equal hashes are equal snapshots.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The snapshot file, as it is stored (copied together on each call).
    pub fn bytes(&self) -> Vec<u8> {
        [&self.header[..], self.archive.bytes()].concat()
    }

    /// The bytes of a piece of the file; none where no piece of it is.
    pub fn piece(&self, place: Place) -> Option<&[u8]> {
        let end = place.offset.checked_add(place.length)?;
        match place.offset.checked_sub(header::HEADER_BYTES) {
            None => self.header.get(place.offset..end),
            Some(from) => self.archive.bytes().get(from..from + place.length),
        }
    }

    /// The file's pieces, by the sections that hold them: what is sent of a snapshot to a node that has another one. Hashes all
    /// of it: not on a thread that others wait for.
    pub fn pieces(&self) -> Pieces {
        cut::cut(self)
    }

    /// The policy document this was compiled from.
    pub fn document(&self) -> &str {
        &self.body().document
    }

    /// `[policy] name`, or empty.
    pub fn title(&self) -> &str {
        &self.body().name
    }

    /// `[policy] block_contact`, or empty.
    pub fn contact(&self) -> &str {
        &self.body().contact
    }

    /// What the client's address may do, by Access Restriction.
    pub fn rights(&self, client: IpAddr) -> Rights {
        let admission = self.admission(client);
        if admission.admitted { admission.rights } else { Rights::NONE }
    }

    /// Whether Access Restriction asks for authentication. Then a slave needs the right CLUSTER to join.
    pub fn authentication_on(&self) -> bool {
        self.body().access.authentication
    }

    /// Whether the policy allows this address and port although it is of a kind that is refused otherwise (loopback,
    /// link-local, the node's own, private if the policy refuses those).
    pub fn destination_allowed(&self, address: IpAddr, port: u16) -> bool {
        self.network().allows_destination(address, port)
    }

    /// Whether addresses of private networks are refused as destinations unless they are named.
    #[inline]
    pub fn refuse_private(&self) -> bool {
        self.network().refuse_private
    }

    /// Which field of a trusted proxy names the client.
    #[inline]
    pub fn believed(&self) -> Believed {
        self.client_address().believed()
    }

    /// What origins learn about the client's address.
    #[inline]
    pub fn tells_origins(&self) -> Told {
        self.client_address().told()
    }

    /// The groups of parent proxies, which [`Snapshot::routes`] number.
    pub fn parent_groups(&self) -> Vec<ParentGroup> {
        self.body().parent_groups()
    }

    /// Where routes lead; a permit has the number of one of them, or none.
    pub fn routes(&self) -> Vec<RouteTo> {
        self.body().routes_to()
    }

    /// The script by which the browser of `client` finds its way; `nodes` are those it may use.
    pub fn proxy_script(&self, client: IpAddr, nodes: &[Choice]) -> Result<String, NoScript> {
        let pac = self.body_of(LocalSection::Pac).pac.as_ref().ok_or(NoScript::NotInPolicy)?;
        pac::script(pac, &self.name, client, nodes)
    }

    /// How many hosts the categories hold.
    pub fn category_hosts(&self) -> usize {
        self.body().hosts.count()
    }

    /// Appends the names of one list, joined by commas.
    pub fn write_list(&self, tags: &Tags, kind: ListKind, out: &mut String) {
        self.write_names(kind, tags.of(kind), out);
    }

    /// The page for a denied request.
    pub fn block_page(&self, template: TemplateId, facts: &BlockFacts) -> Page {
        let templates = &self.body().templates;
        match templates.get(template.0 as usize).or(templates.first()) {
            Some(t) => page::fill(t.status.to_native(), &t.title, &t.body, facts, self.contact(), &self.name),
            None => page::render(403, page::BLOCKED_TITLE, &[facts.reason]),
        }
    }

    pub(super) fn write_names(&self, kind: ListKind, bits: &Bits, out: &mut String) {
        for (at, number) in bits.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            out.push_str(self.list_name(kind, number));
        }
    }

    fn list_name(&self, kind: ListKind, number: usize) -> &str {
        let body = self.body();
        let name = match kind {
            ListKind::TimeProfiles => body.time_profiles.get(number).map(|profile| &profile.name),
            ListKind::RequestTypes => body.request_types.get(number).map(|request_type| &request_type.name),
            ListKind::UserGroups => body.names.user_groups.get(number),
            ListKind::Categories => body.names.categories.get(number),
            ListKind::Profiles => body.names.profiles.get(number),
        };
        name.map_or("", |name| name.as_str())
    }

    pub(super) fn rule_name(&self, rule: RuleId) -> &str {
        self.rule(rule).map_or("", |rule| &rule.name)
    }

    pub(super) fn rule_section(&self, rule: RuleId) -> &str {
        self.rule(rule).map_or("", |rule| &rule.section)
    }

    pub(super) fn rule_reason(&self, rule: RuleId) -> &str {
        self.rule(rule).map_or("", |rule| &rule.reason)
    }

    /// A rule of another snapshot has no texts here.
    pub(super) fn rule(&self, rule: RuleId) -> Option<&ArchivedRule> {
        self.body().rules.get(rule.0 as usize)
    }

    /// The same policy with these sections in force instead of its own.
    pub fn with_own(self, own: Option<Arc<OwnSections>>) -> Snapshot {
        Snapshot { own, ..self }
    }

    /// The names of the sections that are not this policy's but the node's own.
    pub fn own_sections(&self) -> Vec<&'static str> {
        self.own.iter().flat_map(|own| own.names()).collect()
    }

    /// What is effectively enforced: the snapshot's hash, unless sections of the node's own are in force; then a hash over it and them.
    pub fn effect(&self) -> [u8; 32] {
        self.own.as_ref().map_or(self.hash, |own| own.effect_on(self.hash))
    }

    /// Where a section stands that may be the node's own.
    fn body_of(&self, section: LocalSection) -> &ArchivedBody {
        match &self.own {
            Some(own) if own.holds(section) => own.body(),
            _ => self.body(),
        }
    }

    #[inline]
    pub(super) fn network(&self) -> &ArchivedNetwork {
        &self.body_of(LocalSection::Network).network
    }

    #[inline]
    fn client_address(&self) -> &ArchivedClientAddress {
        &self.body_of(LocalSection::ClientAddress).client_address
    }

    pub(super) fn body(&self) -> &ArchivedBody {
        self.archive.get()
    }

    pub(super) fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// What Access Restriction says about a client.
    #[inline]
    pub(super) fn admission(&self, client: IpAddr) -> Admission<'_> {
        let access = &self.body().access;
        access.admission(self.addresses.find(access, client))
    }

    pub(super) fn types(&self) -> &TypeTables {
        &self.types
    }

    pub(super) fn rules(&self) -> &RuleSets {
        &self.rules
    }

    /// The number of the first route that holds for this host and these tags.
    #[inline]
    pub(super) fn route(&self, host: &str, tags: &Tags) -> Option<u16> {
        self.routes.find(host, &tags.profiles)
    }

    pub(super) fn zones(&self) -> &[TimeZone] {
        &self.zones
    }
}

/// Where in its archive the bulk of the categories' host table lies: from, to.
struct Bulk {
    slots: (usize, usize),
    text: (usize, usize),
}

fn bulk(body: &ArchivedBody, archive: &[u8]) -> Bulk {
    let place = |start: usize, bytes: usize| {
        let from = start.wrapping_sub(archive.as_ptr() as usize).min(archive.len());
        (from, from.saturating_add(bytes).min(archive.len()))
    };
    let slots = &body.hosts.slots;
    Bulk {
        slots: place(slots.as_ptr() as usize, size_of_val(slots.as_slice())),
        text: place(body.hosts.text.as_ptr() as usize, body.hosts.text.len()),
    }
}

/// Over all of an archive but the slots and the text of its categories' host table.
fn rest_digest(body: &ArchivedBody, archive: &[u8]) -> RestDigest {
    let Bulk { slots, text } = bulk(body, archive);
    let mut bulk = [slots, text];
    bulk.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    for (from, to) in bulk {
        // Where they lie is part of the digest: two bodies with bulks in other places are not the same.
        hasher.update(&(from as u64).to_le_bytes()).update(&(to as u64).to_le_bytes());
        hasher.update(&archive[at.min(from)..from]);
        at = to;
    }
    hasher.update(&archive[at..]);
    let mut digest = RestDigest::default();
    let length = digest.len();
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..length]);
    digest
}

/// Why a held snapshot file is not opened.
#[derive(Debug)]
pub enum OpenError {
    /// It cannot be read.
    File(io::Error),
    /// What it holds is no snapshot for this node.
    Snapshot(SnapshotError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::File(error) => write!(f, "it cannot be read: {error}"),
            OpenError::Snapshot(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<SnapshotError> for OpenError {
    fn from(error: SnapshotError) -> Self {
        OpenError::Snapshot(error)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshot").field(&self.name).finish()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
