//! What the node answers in its own name: a page that says what, why and what to do.

use super::account::Account;
use super::connection::Client;
use super::connection::Fault;
use super::connection::Next;
use super::connection::Request;
use super::failure::Failure;
use super::failure::Verdict;
use crate::policy::BlockFacts;
use crate::policy::ListKind;
use crate::policy::Page;
use crate::policy::page;
use crate::record::By;
use crate::record::CacheCode;
use crate::record::Ending;
use crate::record::Phase;
use crate::wire::http1::Answer;
use crate::wire::http1::ReplyTo;
use crate::wire::http1::write_answer;
use crate::wire::http1::write_proxy_status;
use std::borrow::Cow;

/// How much of the request has been read when it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// All of it: so many bytes of the connection's buffer.
    Whole(usize),
    /// Not all of it.
    Part,
}

/// Ends the exchange of a request whose head never became whole.
pub(super) async fn broken(client: &Client<'_>, account: &mut Account<'_>, fault: Fault) -> Next {
    refuse(client, account, Failure::from(fault), Reading::Part).await
}

/// Answers with the page of `failure`, and ends the exchange.
pub(super) async fn refuse(client: &Client<'_>, account: &mut Account<'_>, failure: Failure, reading: Reading) -> Next {
    let mut failure = failure;
    let mut verdict = failure.verdict();
    let mut page = page_of(client, account, &failure, &verdict);
    if !matches!(failure, Failure::NoRecord)
        && verdict.status != 0
        && account.open(page.content_type.as_bytes()).is_err()
    {
        failure = Failure::NoRecord;
        verdict = failure.verdict();
        page = page_of(client, account, &failure, &verdict);
    }
    if verdict.status == 0 {
        account.settle(verdict.ending);
        return Next::Close;
    }
    let kept = account.request.is_some_and(|request| request.head.keep_alive());
    let close = verdict.close || !kept || reading == Reading::Part || client.state.closes();
    let mut proxy_status = String::new();
    let details = if verdict.words.is_empty() { &account.reason } else { verdict.words.as_str() };
    write_proxy_status(&client.state.via, Some(verdict.error), details, &mut proxy_status);
    let content_type = Some(page.content_type);
    let own = Own { status: page.status, content_type, body: page.body.as_bytes(), proxy_status, fields: &[] };
    let sent = send(client, account, &own, close).await;
    account.settle(if sent { verdict.ending } else { Ending::new(By::Client, Phase::Last) });
    after(reading, sent, close)
}

/// Answers a TRACE or OPTIONS that may take no further hop (RFC 9110 section 7.6.2), and ends the exchange.
pub(super) async fn last_hop(
    client: &Client<'_>,
    request: Request<'_>,
    account: &mut Account<'_>,
    reading: Reading,
) -> Next {
    let mut body = Vec::new();
    let mut own = Own { status: 200, content_type: None, body: &[], proxy_status: String::new(), fields: &[] };
    if request.head.is_trace() {
        request.head.write_trace(request.buf, &mut body);
        (own.content_type, own.body) = (Some("message/http"), &body);
    } else {
        own.fields = &[("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE, CONNECT")];
    }
    write_proxy_status(&client.state.via, None, "the last hop that Max-Forwards allows", &mut own.proxy_status);
    account.ended.cachecode = CacheCode::Interface;
    account.ended.status = own.status;
    if account.open(own.content_type.unwrap_or("").as_bytes()).is_err() {
        return refuse(client, account, Failure::NoRecord, reading).await;
    }
    let close = !request.head.keep_alive() || reading == Reading::Part || client.state.closes();
    let sent = send(client, account, &own, close).await;
    account.settle(if sent { Ending::COMPLETE } else { Ending::new(By::Client, Phase::Last) });
    after(reading, sent, close)
}

/// What becomes of the connection.
fn after(reading: Reading, sent: bool, close: bool) -> Next {
    match reading {
        _ if !sent => Next::Close,
        Reading::Whole(used) if !close => Next::Again { used, behind: Vec::new() },
        _ => Next::Linger,
    }
}

/// An answer of ours.
struct Own<'a> {
    status: u16,
    content_type: Option<&'a str>,
    body: &'a [u8],
    proxy_status: String,
    fields: &'a [(&'a str, &'a str)],
}

/// Writes what the failure means into the account, and the page for it.
fn page_of(client: &Client<'_>, account: &mut Account<'_>, failure: &Failure, verdict: &Verdict) -> Page {
    account.ended.cachecode = verdict.cachecode;
    account.ended.status = verdict.status;
    let reference = account.reference();
    let page = match failure {
        Failure::Denied(denial) => {
            let snapshot = &account.held.snapshot;
            account.rule = Cow::Borrowed(denial.rule(snapshot));
            account.filter_name = Cow::Borrowed(denial.section(snapshot));
            account.reason = Cow::Borrowed(denial.reason(snapshot));
            let (mut url, mut category) = (String::new(), String::new());
            if let Some(request) = account.request {
                request.head.write_url(request.buf, &mut url);
            }
            snapshot.write_list(&account.tags, ListKind::Categories, &mut category);
            let facts = BlockFacts {
                url: &url,
                host: account.request.map_or("", |request| request.head.host()),
                reason: &account.reason,
                rule: &account.rule,
                category: &category,
                client: &client.address.get().ip().to_string(),
                user: "",
                reference: &reference,
                node: &client.state.node_name,
            };
            snapshot.block_page(denial.template, &facts)
        }
        _ => {
            if !verdict.filter.is_empty() {
                account.filter_name = Cow::Borrowed(verdict.filter);
                account.reason = Cow::Owned(verdict.words.clone());
            }
            let reference = format!("Reference: {reference}, node {}", client.state.node_name);
            page::render(verdict.status, verdict.title, &[&verdict.words, &reference])
        }
    };
    account.ended.status = page.status;
    page
}

async fn send(client: &Client<'_>, account: &mut Account<'_>, own: &Own<'_>, close: bool) -> bool {
    let state = client.state;
    let mut out = state.heads.take();
    state.with_date(|date| {
        let answer = Answer {
            status: own.status,
            date: Some(date),
            content_type: own.content_type,
            content_length: own.body.len() as u64,
            close,
            proxy_status: Some(&own.proxy_status),
            fields: own.fields,
        };
        write_answer(&answer, &mut out);
    });
    if account.request.is_none_or(|request| request.head.reply_to() != ReplyTo::Head) {
        out.extend_from_slice(own.body);
        account.ended.download = own.body.len() as u64;
    }
    let (sent, out) = client.stream.send(out, 0, state.timeouts().body).await;
    state.heads.give(out);
    sent.is_ok()
}
