//! The HTTP server of the admin listener: few connections, each for a short time.

use core::convert::Infallible;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_control::State;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::api;
use super::host::Hosts;
use super::metrics;
use super::page::Page;
use super::snapshots::{Reason, Snapshots};

/// The bounds of what clients may cost. One that sends nothing or reads nothing keeps the next waiting for at most the
/// sum of the two times; connections are taken in the order in which they came, so that many such delay all others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at a time; others wait for one of them to end.
    pub(super) connections: usize,
    /// The time the head of a request may take, and a connection may be idle.
    pub(super) head_time: Duration,
    /// The time after which a connection is closed, when the response under way has been sent.
    pub(super) connection_time: Duration,
    /// The time that this response may still take.
    pub(super) last_response_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32,
            head_time: Duration::from_secs(5),
            connection_time: Duration::from_secs(10),
            last_response_time: Duration::from_secs(5),
        }
    }
}

/// The pause after the kernel refused to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The response to a request for another host.
const MISDIRECTED: &str = "this is not a name of the admin listener; use an IP address or localhost, or add the name \
                           to the key admin_hosts\n";

/// Octets of a request's head, and of what is read ahead.
const MAX_HEAD: usize = 16 << 10;

/// The resources that are served.
pub(super) struct Site {
    snapshots: Snapshots,
    hosts: Hosts,
    page: Page,
    /// The server ends its connections, and answers no more.
    stopping: Arc<AtomicBool>,
}

type Answer = Response<Full<Bytes>>;

impl Site {
    pub(super) fn new(snapshots: Snapshots, hosts: Hosts, stopping: Arc<AtomicBool>) -> Self {
        Self {
            snapshots,
            hosts,
            page: Page::new(),
            stopping,
        }
    }

    async fn answer<B>(&self, request: &Request<B>) -> Answer {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n");
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let path = request.uri().path();
        // Health checks often send a name of the service, and learn nothing but a state.
        if !matches!(path, "/healthz" | "/readyz") && !self.hosts.allow(request) {
            return text(StatusCode::MISDIRECTED_REQUEST, MISDIRECTED);
        }
        let answer = match path {
            "/" => Ok(self.page()),
            "/metrics" => self.metrics().await,
            "/healthz" => self.health().await,
            "/readyz" => self.readiness().await,
            "/api/v1/report" => self.json(api::report).await,
            "/api/v1/info" => self.json(api::info).await,
            "/api/v1/rates" => self.rates().await,
            _ => Ok(text(StatusCode::NOT_FOUND, "not found\n")),
        };
        answer.unwrap_or_else(|reason| text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")))
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Refuses to ask a server that stops: it answers nobody, and the others would wait until that is clear.
    fn expect_answers(&self) -> Result<(), Reason> {
        if self.is_stopping() {
            Err("stopping".into())
        } else {
            Ok(())
        }
    }

    fn page(&self) -> Answer {
        let mut answer = typed("text/html; charset=utf-8", self.page.html);
        answer
            .headers_mut()
            .insert(CONTENT_SECURITY_POLICY, self.page.policy.clone());
        answer
    }

    async fn metrics(&self) -> Result<Answer, Reason> {
        let snapshot = if self.is_stopping() {
            self.snapshots.last().await.ok_or_else(|| Reason::from("stopping"))?
        } else {
            self.snapshots.now().await?
        };
        Ok(typed(metrics::CONTENT_TYPE, metrics::metrics(&snapshot)))
    }

    async fn health(&self) -> Result<Answer, Reason> {
        if self.is_stopping() {
            return Ok(text(StatusCode::OK, "stopping\n"));
        }
        self.snapshots.now().await?;
        Ok(text(StatusCode::OK, "ok\n"))
    }

    async fn readiness(&self) -> Result<Answer, Reason> {
        self.expect_answers()?;
        match self.snapshots.now().await?.state {
            State::Serving => Ok(text(StatusCode::OK, "ok\n")),
            State::Draining => Err("draining".into()),
            State::Waiting => Err("waiting for the interface to come back".into()),
        }
    }

    async fn json(&self, make: fn(&super::Snapshot) -> serde_json::Value) -> Result<Answer, Reason> {
        self.expect_answers()?;
        let snapshot = self.snapshots.now().await?;
        Ok(typed("application/json", make(&snapshot).to_string()))
    }

    async fn rates(&self) -> Result<Answer, Reason> {
        self.expect_answers()?;
        let (before, now) = self.snapshots.span().await?;
        Ok(typed("application/json", api::rates(&before, &now).to_string()))
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = typed("text/plain; charset=utf-8", body);
    *answer.status_mut() = status;
    answer
}

fn typed(media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Accepts connections for as long as the process lives.
pub(super) async fn accept(listener: TcpListener, site: Arc<Site>, limits: Limits) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("the admin listener cannot be served: {error}");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(limits.connections));
    // Never closed, so there is always a place in the end.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let site = Arc::clone(&site);
                tokio::spawn(async move {
                    serve(stream, &site, limits).await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Serves one connection.
async fn serve(stream: TcpStream, site: &Site, limits: Limits) {
    let service =
        service_fn(|request: Request<Incoming>| async move { Ok::<_, Infallible>(site.answer(&request).await) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // What a client does wrong is its own affair.
    if timeout(limits.connection_time, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(limits.last_response_time, connection).await;
    }
}
