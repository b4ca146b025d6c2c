//! What a request becomes for the next machine, and what its connection may be used for afterwards.

use super::connection::Client;
use super::connection::Request;
use super::upstream::Parent;
use super::upstream::authenticates_connection;
use crate::policy::Snapshot;
use crate::policy::Told;
use crate::wire::http1::ForwardRequest;
use crate::wire::http1::ForwardTo;
use crate::wire::http1::ReplyHead;
use crate::wire::http1::TellClient;
use crate::wire::http1::forward_request;

/// What the origin learns about the client.
pub(super) fn tell_client(client: &Client<'_>, snapshot: &Snapshot) -> TellClient {
    let (client, keep) = (client.peer.address.ip(), client.peer.trusted);
    match snapshot.tells_origins() {
        Told::Nothing => TellClient::Nothing,
        Told::AsReceived => TellClient::AsReceived,
        Told::XForwardedFor => TellClient::XForwardedFor { client, keep },
        Told::Forwarded => TellClient::Forwarded { client, keep },
    }
}

/// Spells the head again, for another next machine than before; answers how long it is now.
pub(super) fn spell_anew(
    client: &Client<'_>,
    request: Request<'_>,
    parent: Option<&Parent>,
    how: ForwardRequest<'_>,
    head_bytes: usize,
    out: &mut Vec<u8>,
) -> usize {
    let body = out.split_off(head_bytes);
    out.clear();
    let to = if parent.is_some() { ForwardTo::Parent } else { ForwardTo::Origin };
    forward_request(request.head, request.buf, &ForwardRequest { to, ..how }, out);
    if let Some(parent) = parent {
        out.truncate(out.len().saturating_sub(2));
        client.state.upstreams.authorize(parent, out);
        out.extend_from_slice(b"\r\n");
    }
    let head_bytes = out.len();
    out.extend_from_slice(&body);
    head_bytes
}

/// Whether sending the request twice is harmless, whatever became of the first time: idempotent, and without a body.
pub(super) fn may_be_sent_again(request: &Request<'_>) -> bool {
    request.head.is_idempotent() && !request.head.framing().has_body()
}

/// Whether a 401 offers a scheme that authenticates the connection.
pub(super) fn asks_for_connection(head: &ReplyHead, replies: &[u8]) -> bool {
    let mut offers = head.fields(replies).filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
    offers.any(|(_, value)| authenticates_connection(value))
}
