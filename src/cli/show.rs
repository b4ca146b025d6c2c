//! The node's answers for human eyes, one function an outcome.

use crate::admin::Check;
use crate::admin::Diagnostics;
use crate::admin::KernelCheck;
use crate::admin::Outcome;
use crate::admin::Param;
use crate::admin::PolicyVersion;
use crate::admin::Refused;
use crate::admin::Rollout;
use crate::admin::RolloutEnd;
use crate::admin::Status;
use crate::admin::Unfit;
use crate::admin::Verdict;
use crate::base::words::bytes;
use crate::cli::paper::Cell;
use crate::cli::paper::Ink;
use crate::cli::paper::Paper;
use crate::cli::paper::cell;
use crate::cli::paper::number;
use crate::cli::tasks;
use crate::cli::times;
use crate::cluster::NodeRow;
use crate::policy::Complaint;
use crate::report::Answer;
use crate::report::Gap;
use crate::report::Proof;
use crate::report::Rank;
use crate::report::UnderWay;
use std::path::Path;

/// An outcome as a page.
pub fn outcome(paper: &mut Paper, outcome: &Outcome) {
    match outcome {
        Outcome::Status(node) => status(paper, node),
        Outcome::Health { reasons } => health(paper, reasons),
        Outcome::FiguresOfDay { points } => paper.line(&format!("{} intervals of a quarter of an hour", points.len())),
        Outcome::Metrics { text } => paper.block(text),
        Outcome::ProxyScript { script } => paper.block(script),
        Outcome::Nodes { nodes: rows } => nodes(paper, rows),
        Outcome::Connections(under_way) => connections(paper, under_way),
        Outcome::Verify { checks } => verify(paper, checks),
        Outcome::Kernel { checks } => kernel(paper, checks),
        // What goes into a file is written there; the command shows its contents by itself.
        Outcome::Diagnostics(diagnostics) => contents(paper, diagnostics),
        Outcome::Policy(policy) => paper.block(&policy.document),
        Outcome::Checked { complaints: found } if found.is_empty() => paper.line("The document has no fault."),
        Outcome::Checked { complaints: found } => complaints(paper, found),
        Outcome::Diff { text, complaints: found } => diff(paper, text, found),
        Outcome::Rollout { rollout: None } => paper.line("No policy was rolled out in waves yet."),
        Outcome::Rollout { rollout: Some(run) } => rollout(paper, run),
        Outcome::Merged { document, .. } => paper.block(document),
        Outcome::Applied { snapshot, in_waves: true, .. } => {
            paper.line(&format!(
                "Applied: {snapshot} is on its way in waves. To follow it: tidegate policy rollout --follow"
            ));
        }
        Outcome::Applied { snapshot, changed: true, .. } => paper.line(&format!("Applied: {snapshot} is in force.")),
        Outcome::Applied { snapshot, changed: false, .. } => {
            paper.line(&format!("Nothing to do: {snapshot}, which is in force, says the same."));
        }
        Outcome::History { versions } => history(paper, versions),
        Outcome::Explained { verdict, rule, lines } => explained(paper, verdict, rule, lines),
        Outcome::Report(answer) => report(paper, answer),
        Outcome::Audit(proof) => audit(paper, proof),
        Outcome::Tasks { tasks: rows, more } => tasks::list(paper, rows, *more),
        // Likewise.
        Outcome::Backup(archive) => contents(paper, archive),
        Outcome::TaskOutput { file_name, .. } => paper.line(file_name),
        Outcome::Task(task) => tasks::show(paper, task),
        Outcome::Params { file, params: rows } => params(paper, file, rows),
        Outcome::Submitted { live, waiting } => submitted(paper, live, waiting),
        Outcome::Done { words } => paper.line(words),
    }
}

/// A refusal with every single fault.
pub fn refused(paper: &mut Paper, refused: &Refused) {
    paper.inked(&refused.words, Ink::Red);
    complaints(paper, &refused.complaints);
}

fn complaints(paper: &mut Paper, found: &[Complaint]) {
    for complaint in found {
        let line = if complaint.line > 0 { format!("line {}: ", complaint.line) } else { String::new() };
        let place = if complaint.place.is_empty() { String::new() } else { format!("{}: ", complaint.place) };
        paper.line(&format!("  {line}{place}{}", complaint.what));
        if !complaint.remedy.is_empty() {
            paper.inked(&format!("      {}", complaint.remedy), Ink::Dim);
        }
    }
}

fn health(paper: &mut Paper, reasons: &[Unfit]) {
    if reasons.is_empty() {
        paper.line("ok");
    }
    for reason in reasons {
        paper.inked(&reason.words, Ink::Red);
    }
}

fn status(paper: &mut Paper, node: &Status) {
    let mut rows = vec![
        pair("node", &node.node),
        pair("role", &node.role),
        pair("version", &format!("{} (pid {}, up {})", node.version, node.pid, times::lasting(node.uptime_s))),
        pair("proxy", &format!("{} on {} cores", or_none(&node.listen.join(", ")), node.cores)),
        pair("portal", or_none(&node.portal)),
        policy_row(node),
    ];
    if let Some(master) = &node.master {
        let (state, ink) = if master.up { ("reached", Ink::Plain) } else { ("NOT REACHED", Ink::Red) };
        rows.push(vec![label("master"), cell(format!("{} {state}", master.address)).ink(ink)]);
        rows.push(pair("", &format!("last contact {}", times::local(master.last_contact_us))));
        rows.push(pair("", &format!("policy synced {}", times::local(master.synced_us))));
        rows.push(pair("", &format!("clock skew {} ms", master.clock_skew_ms)));
    }
    let lag = node.records_written.saturating_sub(node.records_acknowledged);
    rows.push(pair("records", &format!("{} written, {lag} not yet in the report", node.records_written)));
    let counters = &node.counters;
    rows.push(pair(
        "clients",
        &format!("{} connections open, {} since start", counters.connections_open, counters.connections),
    ));
    rows.push(pair(
        "exchanges",
        &format!(
            "{}, {} denied, {} failed, {} tunnels open",
            counters.exchanges, counters.denied, counters.failed, counters.tunnels_open
        ),
    ));
    rows.push(pair("traffic", &format!("{} up, {} down", bytes(counters.upload), bytes(counters.download))));
    let front = &node.front;
    let refused = front.shed + front.proxy_header_refused;
    if refused > 0 {
        let (of_one, header) = (front.client_limited, front.proxy_header_refused);
        let words =
            format!("{refused} connections, {of_one} of them of one client too many, {header} for their PROXY header");
        rows.push(pair("refused", &words));
    }
    paper.table(&rows);
    for trouble in troubles(node) {
        paper.inked(&format!("! {trouble}"), Ink::Red);
    }
}

fn policy_row(node: &Status) -> Vec<Cell> {
    let words = match node.policy_version {
        0 => "none applied yet: every request is denied (tidegate policy apply FILE)".to_string(),
        _ => node.snapshot.clone(),
    };
    vec![label("policy"), cell(words).ink(if node.policy_version == 0 { Ink::Red } else { Ink::Plain })]
}

fn troubles(node: &Status) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(node.master.iter().map(|master| master.trouble.clone()));
    found.extend(node.draining.iter().map(|draining| {
        let stage =
            if draining.closing { "answers close their connections" } else { "balancers are being given notice" };
        format!("drained by {} since {}: {stage} (tidegate undrain)", draining.by, times::local(draining.since_us))
    }));
    found.push(node.log_trouble.clone());
    found.extend(node.params_trouble.iter().cloned());
    if !node.waiting_for_restart.is_empty() {
        found.push(format!(
            "changed and waiting for a restart: {} (tidegate restart)",
            node.waiting_for_restart.join(", ")
        ));
    }
    found.retain(|words| !words.is_empty());
    found
}

/// The cluster's nodes, worst news in red.
pub fn nodes(paper: &mut Paper, rows: &[NodeRow]) {
    let mut table =
        vec![head(&["node", "role", "state", "address", "version", "policy", "last contact", "lag", "skew ms"])];
    for row in rows {
        let state = match (row.refusal.is_empty(), row.up) {
            (false, _) => cell("refused").ink(Ink::Red),
            (true, true) if row.offer.draining => cell("drained").ink(Ink::Red),
            (true, true) => cell("up").ink(Ink::Green),
            (true, false) => cell("down").ink(Ink::Red),
        };
        let ink = if row.current { Ink::Plain } else { Ink::Red };
        table.push(vec![
            cell(&row.name),
            cell(&row.role),
            state,
            cell(&row.address),
            cell(&row.version),
            cell(or_none(&row.snapshot)).ink(ink),
            cell(times::local(row.last_contact_us)),
            number(row.record_lag),
            number(row.clock_skew_ms),
        ]);
    }
    paper.table(&table);
    let accounts = rows.iter().filter(|row| row.refusal.is_empty()).map(|row| {
        let missing = number(row.records.missing).ink(if row.records.missing > 0 { Ink::Red } else { Ink::Plain });
        let told = &row.records;
        let counts = [told.ended, told.written, told.shipped, told.stored].map(number);
        std::iter::once(cell(&row.name)).chain(counts).chain([missing, number(row.record_lag)]).collect::<Vec<_>>()
    });
    let named = ["records of", "ended", "in extended.log", "shipped", "stored", "missing", "lag"];
    paper.table(&std::iter::once(head(&named)).chain(accounts).collect::<Vec<_>>());
    for row in rows {
        row.records.gaps.iter().for_each(|found| gap(paper, found));
        for words in [&row.refusal, &row.error, &row.drift].into_iter().filter(|words| !words.is_empty()) {
            paper.inked(&format!("! {}: {words}", row.name), Ink::Red);
        }
    }
}

fn kernel(paper: &mut Paper, checks: &[KernelCheck]) {
    let mark = |verdict| match verdict {
        Verdict::Good => cell("good").ink(Ink::Green),
        Verdict::Unknown => cell("unknown").ink(Ink::Dim),
        Verdict::Advice => cell("advice"),
        Verdict::Hurts => cell("HURTS").ink(Ink::Red),
    };
    let rows = checks.iter().map(|check| vec![mark(check.verdict), cell(&check.name), cell(&check.found)]);
    paper.table(&rows.collect::<Vec<_>>());
    for check in checks.iter().filter(|check| !check.remedy.is_empty()) {
        paper.heading(&check.name);
        paper.line(&check.why);
        paper.line(&format!("  {}", check.remedy));
    }
}

/// Where diagnostics went and what is in them.
pub fn diagnostics(paper: &mut Paper, path: &Path, diagnostics: &Diagnostics) {
    paper.line(&format!("Wrote {}, readable by you alone:", path.display()));
    contents(paper, diagnostics);
}

fn contents(paper: &mut Paper, diagnostics: &Diagnostics) {
    let rows =
        diagnostics.contents.iter().map(|file| vec![cell(&file.name), number(bytes(file.bytes)), cell(&file.about)]);
    paper.table(&rows.collect::<Vec<_>>());
}

fn verify(paper: &mut Paper, checks: &[Check]) {
    let rows = checks.iter().map(|check| {
        let mark = if check.passed { cell("passed").ink(Ink::Green) } else { cell("FAILED").ink(Ink::Red) };
        vec![mark, cell(&check.name), cell(&check.words)]
    });
    paper.table(&rows.collect::<Vec<_>>());
    let failed = checks.iter().filter(|check| !check.passed).count();
    paper.line(&match failed {
        0 => format!("All {} checks passed.", checks.len()),
        _ => format!("{failed} of {} checks failed.", checks.len()),
    });
}

fn diff(paper: &mut Paper, text: &str, found: &[Complaint]) {
    if text.is_empty() && found.is_empty() {
        paper.line("They say the same.");
    }
    for line in text.lines() {
        let ink = match line.as_bytes().first() {
            Some(b'+') => Ink::Green,
            Some(b'-') => Ink::Red,
            Some(b'@') => Ink::Dim,
            _ => Ink::Plain,
        };
        paper.inked(line, ink);
    }
    if !found.is_empty() {
        paper.inked("The document has faults and would not be applied:", Ink::Red);
        complaints(paper, found);
    }
}

fn history(paper: &mut Paper, versions: &[PolicyVersion]) {
    if versions.is_empty() {
        return paper.line("No policy was applied yet.");
    }
    let mut table = vec![head(&["", "version", "snapshot", "applied", "by", "why"])];
    for version in versions {
        table.push(vec![
            match (version.current, version.reverted) {
                (true, _) => cell("*").ink(Ink::Green),
                (false, true) => cell("reverted").ink(Ink::Red),
                (false, false) => cell(""),
            },
            number(version.version),
            cell(&version.snapshot),
            cell(times::local(version.applied_us)),
            cell(&version.author),
            cell(&version.comment),
        ]);
    }
    paper.table(&table);
}

fn rollout(paper: &mut Paper, run: &Rollout) {
    let (state, ink) = match run.end {
        None => (format!("running: wave {} of {}", run.wave, run.plan.waves.len()), Ink::Bold),
        Some(RolloutEnd::Done) => ("done".to_string(), Ink::Green),
        Some(RolloutEnd::Reverted) => (format!("reverted to {}", run.before_snapshot), Ink::Red),
    };
    paper.table(&[
        pair("version", &run.snapshot),
        pair("before", &run.before_snapshot),
        pair("by", &run.by),
        pair("begun", &times::local(run.started_us)),
        vec![label("state"), cell(state).ink(ink)],
    ]);
    for words in &run.notes {
        paper.line(&format!("  {words}"));
    }
}

fn connections(paper: &mut Paper, under_way: &UnderWay) {
    let mut table = vec![head(&["since", "client", "user", "method", "url", "phase", "up", "down", "rule"])];
    for one in &under_way.oldest {
        table.push(vec![
            cell(times::local(one.started_us)),
            cell(&one.client),
            cell(or_none(&one.user)),
            cell(&one.method),
            cell(&one.url),
            cell(&one.phase),
            cell(bytes(one.upload)),
            cell(bytes(one.download)),
            cell(&one.rule),
        ]);
    }
    paper.table(&table);
    let shown = under_way.oldest.len() as u64;
    paper.line(&format!("{} under way, {shown} shown", under_way.count.max(shown)));
}

fn explained(paper: &mut Paper, verdict: &str, rule: &str, lines: &[String]) {
    for line in lines {
        paper.line(line);
    }
    let ink = if verdict == "ALLOW" { Ink::Green } else { Ink::Red };
    paper.inked(&format!("{verdict} by {rule}"), ink);
}

fn audit(paper: &mut Paper, proof: &Proof) {
    let range = if proof.records == 0 { String::new() } else { format!(", seq {} to {}", proof.first, proof.last) };
    paper.line(&format!("{}: {} records of the range in {}{range}", proof.node, proof.records, proof.place));
    for finding in &proof.findings {
        let place = match (finding.file.as_str(), finding.line) {
            ("", _) => String::new(),
            (file, 0) => format!("{file}: "),
            (file, line) => format!("{file}, line {line}: "),
        };
        let numbers = match (finding.first, finding.last) {
            (0, _) => String::new(),
            (first, last) if first == last => format!("seq {first}: "),
            (first, last) => format!("seq {first} to {last}: "),
        };
        paper.inked(&format!("  {place}{numbers}{}", finding.words), Ink::Red);
    }
    if proof.more_findings > 0 {
        paper.inked(&format!("  and {} more", proof.more_findings), Ink::Red);
    }
    for (count, words) in proof.notes() {
        paper.inked(&format!("{count} {words}"), Ink::Dim);
    }
    if !proof.head.is_empty() {
        paper.line(&format!("head: {}", proof.head));
    }
    match (proof.holds(), proof.files > proof.files_unsealed) {
        (false, _) => paper.inked("NOT PROVED: see above", Ink::Red),
        (true, true) => paper.inked("complete, and unchanged since it was sealed", Ink::Green),
        (true, false) => paper.inked("complete: no number is missing", Ink::Green),
    }
}

fn report(paper: &mut Paper, answer: &Answer) {
    paper.line(&format!(
        "{} requests, {} blocked, {} up, {} down",
        answer.requests,
        answer.blocked,
        bytes(answer.upload),
        bytes(answer.download)
    ));
    if answer.unrecorded > 0 {
        let words = format!("! {} more went on without a record (LOG_FULL=count)", answer.unrecorded);
        paper.inked(&words, Ink::Red);
    }
    ranking(paper, "Hosts", &answer.hosts);
    ranking(paper, "Users", &answer.users);
    ranking(paper, "Categories", &answer.categories);
    ranking(paper, "Blocked hosts", &answer.blocked_hosts);
    ranking(paper, "Rules", &answer.rules);
    ranking(paper, "Nodes", &answer.nodes);
    newest(paper, answer);
    if answer.unreadable > 0 {
        let words =
            "records of the range stand in damaged blocks of the store and are not counted: tidegate report audit";
        paper.inked(&format!("! {} {words}", answer.unreadable), Ink::Red);
    }
    answer.gaps.iter().for_each(|found| gap(paper, found));
}

/// Records that never came, and of when.
fn gap(paper: &mut Paper, gap: &Gap) {
    let when = match (gap.after_us, gap.before_us) {
        (0, 0) => String::new(),
        (0, before) => format!(", from before {}", times::local(before)),
        (after, before) => format!(", from between {} and {}", times::local(after), times::local(before)),
    };
    paper.inked(&format!("! {}: {} never arrived{when}", gap.node, gap.numbers()), Ink::Red);
}

fn ranking(paper: &mut Paper, title: &str, ranks: &[Rank]) {
    if ranks.is_empty() {
        return;
    }
    paper.heading(title);
    let mut table = vec![vec![
        number("requests").ink(Ink::Dim),
        number("blocked").ink(Ink::Dim),
        number("bytes").ink(Ink::Dim),
        cell("name").ink(Ink::Dim),
    ]];
    for rank in ranks {
        table.push(vec![
            number(rank.requests),
            number(rank.blocked),
            number(bytes(rank.bytes)),
            cell(or_none(&rank.name)),
        ]);
    }
    paper.table(&table);
}

fn newest(paper: &mut Paper, answer: &Answer) {
    if answer.newest.is_empty() {
        return;
    }
    paper.heading("Newest");
    let mut table = vec![head(&["time", "node", "user", "method", "status", "url", "rule", "policy", "end"])];
    for row in &answer.newest {
        let ink = if row.filter_name == "-" || row.filter_name.is_empty() { Ink::Plain } else { Ink::Red };
        table.push(vec![
            cell(times::local(row.ended_us)),
            cell(&row.node),
            cell(&row.user),
            cell(&row.method),
            number(row.status).ink(ink),
            cell(shorten(&row.url, 100)),
            cell(&row.rule),
            cell(&row.snapshot),
            cell(&row.ending),
        ]);
    }
    paper.table(&table);
}

fn params(paper: &mut Paper, file: &str, rows: &[Param]) {
    paper.inked(file, Ink::Bold);
    let table = rows.iter().map(|param| {
        let note = match &param.in_force {
            Some(value) => cell(format!("in force: \"{value}\" until the restart")).ink(Ink::Red),
            None if param.value == param.default => cell("default").ink(Ink::Dim),
            None => cell(""),
        };
        vec![cell(&param.key), cell(format!("\"{}\"", param.value)), note]
    });
    paper.table(&table.collect::<Vec<_>>());
}

fn submitted(paper: &mut Paper, live: &[String], waiting: &[String]) {
    if live.is_empty() && waiting.is_empty() {
        paper.line("Written; no value means anything else than before.");
    }
    if !live.is_empty() {
        paper.line(&format!("In force now: {}", live.join(", ")));
    }
    if !waiting.is_empty() {
        paper.line(&format!("Waiting for a restart (tidegate restart): {}", waiting.join(", ")));
    }
}

fn head(names: &[&str]) -> Vec<Cell> {
    names.iter().map(|name| cell(name).ink(Ink::Dim)).collect()
}

fn label(name: &str) -> Cell {
    cell(name).ink(Ink::Dim)
}

fn pair(name: &str, value: &str) -> Vec<Cell> {
    vec![label(name), cell(value)]
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn shorten(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text.to_string(),
    }
}
