//! HTTP/1.1 service on one accepted connection, with the deadlines and the refusal that every face of port 8888 shares.

use crate::limits::CLUSTER_ANSWER_MS;
use crate::limits::CLUSTER_HEAD_MS;
use crate::limits::FRONT_ANSWER_MS;
use crate::limits::FRONT_HEAD_MS;
use crate::limits::HEAD_BYTES_MAX;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, LOCATION};
use hyper::http::uri::Authority;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::{Service, ServiceExt};

/// How patient a server is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a request head, and for the next one on a kept-alive connection.
    pub head: Duration,
    /// For the service's answer.
    pub answer: Duration,
}

impl Patience {
    /// With browsers.
    pub const PORTAL: Patience =
        Patience { head: Duration::from_millis(FRONT_HEAD_MS), answer: Duration::from_millis(FRONT_ANSWER_MS) };
    /// With slaves.
    pub const CLUSTER: Patience =
        Patience { head: Duration::from_millis(CLUSTER_HEAD_MS), answer: Duration::from_millis(CLUSTER_ANSWER_MS) };
}

/// Serves `service` (an axum router, say) on `stream` until the peer is done or `patience` ends. `decorate` puts what is
/// known of the connection into each request's extensions. Requests meant for a proxy are refused with `not_a_proxy`.
pub async fn serve<IO, S, B>(
    stream: IO,
    service: S,
    patience: Patience,
    not_a_proxy: Arc<str>,
    decorate: impl Fn(&mut Request<Incoming>) + Send + 'static,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let answer = service_fn(move |mut request: Request<Incoming>| {
        decorate(&mut request);
        let refusal = is_for_a_proxy(&request).then(|| refuse_as_proxy(&not_a_proxy));
        let service = service.clone();
        async move {
            if let Some(refusal) = refusal {
                return Ok::<_, Infallible>(refusal.map(Either::Right));
            }
            match tokio::time::timeout(patience.answer, service.oneshot(request)).await {
                Ok(Ok(response)) => Ok(response.map(Either::Left)),
                Ok(Err(never)) => match never {},
                Err(_) => Ok(text(StatusCode::SERVICE_UNAVAILABLE, "This node was too busy to answer. Try again.\n")
                    .map(Either::Right)),
            }
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = connection.await {
        tracing::debug!("serving a connection on the portal's port: {error}");
    }
}

/// What is answered over plain HTTP as well: a few paths, by GET and HEAD. Whatever else is asked for is sent to HTTPS.
#[derive(Clone)]
pub struct Plain {
    paths: &'static [&'static str],
    answer: PlainAnswer,
}

type PlainBody = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;
type PlainAnswering = Pin<Box<dyn Future<Output = Response<PlainBody>> + Send>>;
type PlainAnswer = Arc<dyn Fn(Request<Incoming>, SocketAddr) -> PlainAnswering + Send + Sync>;

impl Plain {
    /// Nothing: all of plain HTTP is sent to HTTPS.
    pub fn nothing() -> Plain {
        let never = |_, _| Box::pin(async { boxed(text(StatusCode::NOT_FOUND, "")) }) as PlainAnswering;
        Plain { paths: &[], answer: Arc::new(never) }
    }

    /// `service`'s answers to these paths. `decorate` puts the caller's address into each request's extensions.
    pub fn new<S, B>(
        paths: &'static [&'static str],
        service: S,
        decorate: impl Fn(&mut Request<Incoming>, SocketAddr) + Send + Sync + 'static,
    ) -> Plain
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let answer = move |mut request: Request<Incoming>, from: SocketAddr| {
            decorate(&mut request, from);
            let asked = service.clone().oneshot(request);
            Box::pin(async move {
                match asked.await {
                    Ok(answer) => boxed(answer),
                    Err(never) => match never {},
                }
            }) as PlainAnswering
        };
        Plain { paths, answer: Arc::new(answer) }
    }

    fn answers<B>(&self, request: &Request<B>) -> bool {
        matches!(*request.method(), Method::GET | Method::HEAD) && self.paths.contains(&request.uri().path())
    }
}

fn boxed<B>(answer: Response<B>) -> Response<PlainBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    answer.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// Answers a connection that speaks plain HTTP: what is `plain` is answered, else a browser is sent to HTTPS and a proxy
/// client is refused. One answer, then the connection closes; the caller bounds the time.
pub(super) async fn serve_plain<IO>(
    stream: IO,
    (local, from): (SocketAddr, SocketAddr),
    not_a_proxy: Arc<str>,
    plain: Plain,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = service_fn(move |request: Request<Incoming>| {
        let answering: PlainAnswering = if is_for_a_proxy(&request) {
            let answer = boxed(refuse_as_proxy(&not_a_proxy));
            Box::pin(async { answer })
        } else if plain.answers(&request) {
            (plain.answer)(request, from)
        } else {
            let answer = boxed(redirect(&request, local));
            Box::pin(async { answer })
        };
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = connection.await {
        tracing::debug!("answering plain HTTP on the portal's port: {error}");
    }
}

/// Only a client that takes this port for a proxy sends CONNECT or a whole URL.
fn is_for_a_proxy<B>(request: &Request<B>) -> bool {
    request.method() == Method::CONNECT || request.uri().authority().is_some()
}

fn refuse_as_proxy(words: &str) -> Response<Full<Bytes>> {
    let mut answer = text(StatusCode::FORBIDDEN, words);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn redirect<B>(request: &Request<B>, local: SocketAddr) -> Response<Full<Bytes>> {
    let asked = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = asked.and_then(|host| host.parse::<Authority>().ok()).filter(|host| !host.as_str().contains('@'));
    let host = host.map_or_else(|| local.to_string(), |host| host.to_string());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut answer = text(StatusCode::PERMANENT_REDIRECT, "The portal speaks HTTPS only.\n");
    if let Ok(location) = HeaderValue::from_str(&format!("https://{host}{path}")) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

fn text(status: StatusCode, words: &str) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(words.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_urls_and_connect_count_as_proxy_requests() {
        for (method, uri, proxy) in [
            ("GET", "/", false),
            ("GET", "/a?u=http://b/", false),
            ("OPTIONS", "*", false),
            ("GET", "http://example.com/", true),
            ("POST", "https://example.com/", true),
            ("CONNECT", "example.com:443", true),
        ] {
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            assert_eq!(is_for_a_proxy(&request), proxy, "{method} {uri}");
        }
    }

    #[test]
    fn the_redirect_keeps_host_port_and_path_and_survives_strange_hosts() {
        let local: SocketAddr = "192.0.2.1:8888".parse().unwrap();
        for (host, location) in [
            (Some("gw:8888"), "https://gw:8888/a?b=c"),
            (Some("[2001:db8::1]:8888"), "https://[2001:db8::1]:8888/a?b=c"),
            (None, "https://192.0.2.1:8888/a?b=c"),
            (Some("a b"), "https://192.0.2.1:8888/a?b=c"),
            (Some("user@evil"), "https://192.0.2.1:8888/a?b=c"),
        ] {
            let mut request = Request::builder().uri("/a?b=c");
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            let answer = redirect(&request.body(()).unwrap(), local);
            assert_eq!(answer.status(), StatusCode::PERMANENT_REDIRECT);
            assert_eq!(answer.headers()[LOCATION], location);
        }
    }
}
