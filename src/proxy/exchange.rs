//! One exchange: is the request permitted, and where does it go.

use super::account::Account;
use super::answer;
use super::answer::Reading;
use super::body::Body;
use super::connection::Client;
use super::connection::Next;
use super::connection::Request;
use super::failure::Failure;
use super::relay;
use super::tunnel;
use crate::policy;
use crate::policy::Facts;
use crate::policy::Headers;
use crate::policy::Permit;
use crate::policy::Verdict;
use crate::wire::http1::RequestHead;
use crate::wire::http1::Scheme;
use crate::wire::http1::TargetForm;
use std::borrow::Cow;

/// Runs the exchange of a request whose head has been read, to its end.
pub(super) async fn run<'a>(client: &'a Client<'a>, request: Request<'a>, account: &mut Account<'a>) -> Next {
    account.request = Some(request);
    let mut body = Body::new(request.head.framing());
    let early = match body.look(&request.buf[request.head_bytes..]) {
        Ok(early) => early,
        Err(error) => return answer::refuse(client, account, Failure::BadBody(error), Reading::Part).await,
    };
    account.ended.upload = early.payload;
    let used = request.head_bytes + early.bytes;
    match permitted(client, request, account) {
        Err(failure) => {
            let reading = if body.is_whole() { Reading::Whole(used) } else { Reading::Part };
            account.ended.upload = 0;
            answer::refuse(client, account, failure, reading).await
        }
        // RFC 9110 section 7.6.2: it is for us. Policy was asked first, so that nobody learns more here than elsewhere.
        Ok(_) if request.head.max_forwards() == Some(0) => {
            let reading = if body.is_whole() { Reading::Whole(used) } else { Reading::Part };
            account.ended.upload = 0;
            answer::last_hop(client, request, account, reading).await
        }
        Ok(permit) if request.head.is_connect() => tunnel::connect(client, request, account, permit).await,
        Ok(permit) => relay::forward(client, request, account, permit, body, used).await,
    }
}

/// Asks everybody who may refuse. On success the account knows the rule that permitted it.
fn permitted<'a>(client: &Client<'a>, request: Request<'a>, account: &mut Account<'a>) -> Result<Permit, Failure> {
    let Request { head, buf, .. } = request;
    if let Some(words) = &client.state.refuse_as_master {
        return Err(Failure::Master(words.clone()));
    }
    if matches!(head.form(), TargetForm::Origin | TargetForm::Asterisk) {
        return Err(Failure::NotToAProxy);
    }
    if head.went_in_a_circle(buf, &client.state.via) {
        return Err(Failure::Circle);
    }
    let scheme = match (head.is_connect(), head.scheme()) {
        (true, _) => policy::Scheme::Tunnel,
        (false, Scheme::Http) => policy::Scheme::Http,
        (false, Scheme::Https) => return Err(Failure::NeedsTunnel),
    };
    let facts = Facts {
        client: client.address.get().ip(),
        user: None,
        method: head.method(buf),
        scheme,
        host: head.host(),
        port: head.port(),
        path: head.path(buf),
        headers: &Fields { head, buf },
        now: client.state.deadlines.wall(),
        node: &client.state.node_name,
    };
    let decision = policy::decide(&account.held.snapshot, &facts);
    account.tags = decision.tags;
    let permit = match decision.verdict {
        Verdict::Deny(denial) => return Err(Failure::Denied(denial)),
        Verdict::Permit(permit) => permit,
    };
    account.rule = Cow::Borrowed(permit.rule(&account.held.snapshot));
    match refused_upgrade(head, buf) {
        Some(protocol) if !permit.upgrade_allowed() => Err(Failure::Upgrade(protocol.to_string())),
        _ => Ok(permit),
    }
}

/// The protocol asked for, if refusing it must be said. `h2c` is an offer that many clients make with every request and
/// do well without: it is dropped instead.
fn refused_upgrade<'a>(head: &RequestHead, buf: &'a [u8]) -> Option<&'a str> {
    if !head.wants_upgrade() {
        return None;
    }
    head.upgrades(buf).find(|protocol| !protocol.eq_ignore_ascii_case("h2c"))
}

/// A request's fields as policy asks for them.
struct Fields<'a> {
    head: &'a RequestHead,
    buf: &'a [u8],
}

impl Headers for Fields<'_> {
    fn value(&self, name: &str) -> Option<&[u8]> {
        self.head.field(self.buf, name)
    }

    fn each(&self, field: &mut dyn FnMut(&str, &[u8])) {
        self.head.fields(self.buf).for_each(|(name, value)| field(name, value));
    }
}
