//! The Report page: totals, rankings whose rows narrow, requests over time, and the newest records, live.

use crate::admin::Action;
use crate::admin::Outcome;
use crate::admin::Refused;
use crate::base::clock::Wall;
use crate::base::words::bytes;
use crate::portal::chart;
use crate::portal::chart::Chart;
use crate::portal::filters::Chip;
use crate::portal::filters::Filters;
use crate::portal::filters::Preset;
use crate::portal::lines;
use crate::portal::web;
use crate::portal::web::Cx;
use crate::portal::web::Shell;
use crate::portal::words;
use crate::portal::words::Moment;
use crate::report::Answer;
use crate::report::Gap;
use crate::report::Question;
use crate::report::Rank;
use crate::report::RecordRow;
use askama::Template;
use axum::Extension;
use axum::extract::Query;
use axum::http::StatusCode;
use axum::response::Response;
use std::collections::BTreeMap;

/// Rows of each ranking, and newest records, on the page.
const TOP: u32 = 10;
const NEWEST: u32 = 50;
/// The full length of a ranking's bar, in SVG units.
const BAR_WIDTH: u64 = 100;

#[derive(Template)]
#[template(path = "report.html")]
struct ReportPage {
    shell: Shell,
    slave: bool,
    filters: Form,
    presets: Vec<Preset>,
    chips: Vec<Chip>,
    faults: Vec<String>,
    answer: Option<AnswerView>,
}

/// The filter form's values.
struct Form {
    range: String,
    from: String,
    to: String,
    node: String,
    host: String,
    user: String,
    category: String,
    client: String,
    rule: String,
    status: String,
    blocked: String,
}

struct AnswerView {
    requests: String,
    blocked: String,
    blocked_share: String,
    unrecorded: String,
    upload: String,
    download: String,
    chart: Option<Chart>,
    rankings: Vec<Ranking>,
    gaps: Vec<Gap>,
    /// How many records cannot be read; empty if none.
    unreadable: String,
    records: Records,
    live: String,
}

struct Ranking {
    title: &'static str,
    column: &'static str,
    rows: Vec<RankView>,
}

struct RankView {
    name: String,
    /// Empty if there is no name to narrow to.
    link: String,
    requests: String,
    blocked: String,
    bytes: String,
    bar: u64,
    blocked_bar: u64,
}

#[derive(Template)]
#[template(path = "report_rows.html")]
struct Records {
    rows: Vec<RecordView>,
    checked: Moment,
}

struct RecordView {
    record_id: String,
    ended: Moment,
    node: String,
    user: String,
    user_link: String,
    method: String,
    url: String,
    host_link: String,
    status: u16,
    size: String,
    elapsed: String,
    blocked: String,
    rule: String,
    rule_link: String,
    snapshot: String,
    ending: String,
    categories: String,
}

/// GET /report
pub async fn page(Extension(cx): Extension<Cx>, query: Query<BTreeMap<String, String>>) -> Response {
    let filters = Filters::read(&query);
    let now = Wall::now();
    let mut page = ReportPage {
        shell: cx.shell("Report", "report").await,
        slave: cx.portal.is_slave(),
        filters: form(&filters),
        presets: filters.presets(),
        chips: filters.chips(),
        faults: vec![],
        answer: None,
    };
    if page.slave {
        return web::render(StatusCode::OK, &page);
    }
    let mut status = StatusCode::OK;
    match filters.question(now) {
        Ok(question) => match ask(&cx, Question { top: Some(TOP), newest: Some(NEWEST), ..question }).await {
            Ok(answer) => page.answer = Some(answer_view(answer, &filters, now)),
            Err(refused) => {
                status = web::status_of(&refused);
                page.faults.push(refused.words);
            }
        },
        Err(faults) => {
            status = StatusCode::UNPROCESSABLE_ENTITY;
            page.faults = faults;
        }
    }
    web::render(status, &page)
}

/// GET /report/newest: what the page polls. It asks for records alone, so that an open page costs the store little.
pub async fn fragment(Extension(cx): Extension<Cx>, query: Query<BTreeMap<String, String>>) -> Response {
    let filters = Filters::read(&query);
    let now = Wall::now();
    let Ok(question) = filters.question(now) else {
        return web::render(StatusCode::UNPROCESSABLE_ENTITY, &records(vec![], &filters, now));
    };
    match ask(&cx, Question { rows_only: true, newest: Some(NEWEST), ..question }).await {
        Ok(answer) => web::render(StatusCode::OK, &records(answer.newest, &filters, now)),
        Err(refused) => cx.problem("Report", "report", refused).await,
    }
}

async fn ask(cx: &Cx, question: Question) -> Result<Answer, Refused> {
    match cx.ask(Action::Report(question)).await? {
        Outcome::Report(answer) => Ok(*answer),
        other => Err(web::unexpected("Report", &other)),
    }
}

fn form(filters: &Filters) -> Form {
    let text = |name: &str| filters.get(name).to_string();
    Form {
        range: filters.range().to_string(),
        from: filters.time_field("from"),
        to: filters.time_field("to"),
        node: text("node"),
        host: text("host"),
        user: text("user"),
        category: text("category"),
        client: text("client"),
        rule: text("rule"),
        status: text("status"),
        blocked: text("blocked"),
    }
}

fn answer_view(answer: Answer, filters: &Filters, now: Wall) -> AnswerView {
    let rank = |id, title, column, rows: Vec<Rank>, narrow: &[(&'static str, &str)]| {
        ranking(filters, id, title, column, rows, narrow)
    };
    AnswerView {
        requests: words::count(answer.requests),
        blocked: words::count(answer.blocked),
        blocked_share: words::percent(answer.blocked, answer.requests),
        unrecorded: if answer.unrecorded > 0 { words::count(answer.unrecorded) } else { String::new() },
        upload: bytes(answer.upload),
        download: bytes(answer.download),
        chart: chart::chart(&answer.series),
        rankings: vec![
            rank("host", "Top hosts", "Host", answer.hosts, &[]),
            rank("host", "Top blocked hosts", "Host", answer.blocked_hosts, &[("blocked", "yes")]),
            rank("user", "Top users", "User", answer.users, &[]),
            rank("category", "Top categories", "Category", answer.categories, &[]),
            rank("rule", "Rules", "Rule", answer.rules, &[]),
            rank("node", "Nodes", "Node", answer.nodes, &[]),
        ],
        gaps: answer.gaps,
        unreadable: if answer.unreadable > 0 { words::count(answer.unreadable) } else { String::new() },
        records: records(answer.newest, filters, now),
        live: format!("/report/newest{}", filters.query()),
    }
}

fn ranking(
    filters: &Filters,
    id: &'static str,
    title: &'static str,
    column: &'static str,
    rows: Vec<Rank>,
    narrow: &[(&'static str, &str)],
) -> Ranking {
    let most = rows.iter().map(|row| row.requests).max().unwrap_or(0).max(1);
    let bar = |figure: u64| (figure.min(most) as u128 * BAR_WIDTH as u128 / most as u128) as u64;
    let row = |row: Rank| {
        let changes: Vec<(&'static str, &str)> = narrow.iter().copied().chain([(id, row.name.as_str())]).collect();
        RankView {
            link: if row.name.is_empty() { String::new() } else { filters.link(&changes) },
            name: lines::visible(&row.name),
            requests: words::count(row.requests),
            blocked: words::count(row.blocked),
            bytes: bytes(row.bytes),
            bar: bar(row.requests),
            blocked_bar: bar(row.blocked),
        }
    };
    Ranking { title, column, rows: rows.into_iter().map(row).collect() }
}

fn records(rows: Vec<RecordRow>, filters: &Filters, now: Wall) -> Records {
    Records {
        rows: rows.into_iter().map(|row| record(row, filters, now)).collect(),
        checked: words::moment(now.0, now),
    }
}

/// Everything of a record was chosen by clients and origins: it is shown, never obeyed.
fn record(row: RecordRow, filters: &Filters, now: Wall) -> RecordView {
    let link =
        |name, value: &str| if matches!(value, "" | "-") { String::new() } else { filters.link(&[(name, value)]) };
    RecordView {
        user_link: link("user", &row.user),
        host_link: link("host", &row.host),
        rule_link: link("rule", &row.rule),
        record_id: row.record_id,
        ended: words::moment(row.ended_us, now),
        node: lines::visible(&row.node),
        user: lines::visible(&row.user),
        method: lines::visible(&row.method),
        url: lines::visible(&row.url),
        status: row.status,
        size: bytes(row.size),
        elapsed: words::count(row.elapsed_ms),
        blocked: blocked(&row.filter_name, &row.filtering_reason),
        rule: lines::visible(&row.rule),
        snapshot: row.snapshot,
        ending: row.ending,
        categories: lines::visible(&row.categories),
    }
}

fn blocked(section: &str, reason: &str) -> String {
    let parts = [section, reason].into_iter().filter(|part| !matches!(*part, "" | "-"));
    lines::visible(&parts.collect::<Vec<_>>().join(": "))
}
