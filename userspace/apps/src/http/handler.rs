//! From a request to its response.

use std::fmt::Arguments;
use std::sync::Arc;

use bytes::Bytes;
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use tidegate_tcp::time::Instant;

use super::conditional::{self, Precondition};
use super::counters::{Counter, Counters};
use super::head::{self, CONNECTION_CLOSE, HEAD_SIZE};
use super::prepared::CachedResponse;
use super::range::{self, ByteRange};
use super::representation::{Content, Representation};
use super::request::{Framing, Method, Rejection, Request};
use super::response::{After, Body, FilePart, Outgoing};
use super::status::Status;
use super::store::Found;
use super::target::{self, Target};
use super::{Http, Source};

/// Characters that a path in a Location field is not written with (RFC 3986, section 3.3).
const NOT_IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The parts of a response that do not depend on its status.
#[derive(Clone, Copy)]
struct ResponseContext {
    /// The method was HEAD: the fields, but no content.
    head_only: bool,
    /// The Connection line, if there is one.
    connection: &'static str,
    after: After,
    /// The client waits to be told whether it is to send a body. A final status other than success tells it that it is
    /// not, so nobody knows whether what comes next is the body.
    awaits_continue: bool,
    complete_at: std::time::Instant,
}

impl ResponseContext {
    fn new(request: &Request<'_, '_>, persistent: bool) -> Self {
        let (connection, after) = match (persistent, request.is_1_1) {
            (true, true) => ("", After::NextRequest),
            (true, false) => ("Connection: keep-alive\r\n", After::NextRequest),
            (false, _) => (CONNECTION_CLOSE, After::Close),
        };
        Self {
            head_only: request.method == Method::Head,
            connection,
            after,
            awaits_continue: request.expects_continue && request.framing != Framing::Length(0),
            complete_at: std::time::Instant::now(),
        }
    }

    /// The same for a response with this status.
    fn with_status(self, status: Status) -> Self {
        if self.awaits_continue && !status.is_success() {
            Self {
                connection: CONNECTION_CLOSE,
                after: After::Linger,
                ..self
            }
        } else {
            self
        }
    }
}

impl Http {
    /// The response to `request` if it is one of those that are kept ready, and the counters it goes into.
    /// [`Http::answer`] makes the others, and would answer with the same bytes.
    #[inline(always)]
    pub(super) fn cached_response(
        &mut self,
        request: &Request<'_, '_>,
        persistent: bool,
        now: Instant,
    ) -> Option<(CachedResponse<'_>, &mut Counters)> {
        if request.method != Method::Get || !request.is_1_1 || request.conditional {
            return None;
        }
        let path = request.target.as_bytes().strip_prefix(b"/")?;
        let prepared = match &mut self.source {
            Source::BuiltInPage(prepared) if path.is_empty() => prepared,
            Source::BuiltInPage(_) => return None,
            Source::Files(store) => {
                let prepared = store.cached(path, now)?;
                self.counters.bump(Counter::CacheHits);
                prepared
            }
        };
        self.clock.update(now);
        Some((prepared.response(persistent, &self.clock), &mut self.counters))
    }

    /// The response to `request`; the connection stays open after it if `persistent`.
    pub(super) fn answer(&mut self, request: &Request<'_, '_>, persistent: bool, now: Instant) -> Outgoing {
        self.clock.update(now);
        let context = ResponseContext::new(request, persistent);
        match request.method {
            Method::Get | Method::Head => {}
            Method::NotAllowed => {
                return self.brief(Status::MethodNotAllowed, context, format_args!("Allow: GET, HEAD\r\n"));
            }
            Method::Unknown => return self.brief(Status::NotImplemented, context, format_args!("")),
        }
        let Some(target) = target::parse(request.target) else {
            return self.brief(Status::BadRequest, context, format_args!(""));
        };
        let wall = self.clock.seconds();
        let found = match &mut self.source {
            Source::BuiltInPage(page) if target.path.is_empty() => {
                Ok(Found::Representation(Arc::clone(page.representation())))
            }
            Source::BuiltInPage(_) => Err(Status::NotFound),
            Source::Files(store) => store.find(&target.path, now, wall, &mut self.counters),
        };
        match found {
            Ok(Found::Representation(representation)) => self.represent(request, &representation, context, now),
            Ok(Found::Directory) => self.redirect(&target, context),
            Err(status) => self.refuse(status, context),
        }
    }

    /// The response to what cannot be answered as a request. The connection ends after it.
    pub(super) fn reject(&mut self, rejection: Rejection, now: Instant) -> Outgoing {
        self.clock.update(now);
        let context = ResponseContext {
            head_only: rejection.head_only,
            connection: CONNECTION_CLOSE,
            after: After::Linger,
            awaits_continue: false,
            complete_at: std::time::Instant::now(),
        };
        self.brief(rejection.status, context, format_args!(""))
    }

    /// The representation, or the part of it that was asked for, or the news that it is the one the client has.
    fn represent(
        &mut self,
        request: &Request<'_, '_>,
        representation: &Representation,
        context: ResponseContext,
        now: Instant,
    ) -> Outgoing {
        let Representation {
            length,
            content_type,
            validators,
            ..
        } = representation;
        match conditional::evaluate(request, representation) {
            Precondition::Met => {}
            Precondition::NotModified => {
                let context = context.with_status(Status::NotModified);
                let head = self.head(Status::NotModified, context, format_args!("{validators}"));
                return outgoing(Status::NotModified, head, Body::Empty, context);
            }
            Precondition::Failed => {
                return self.brief(Status::PreconditionFailed, context, format_args!(""));
            }
        }
        match requested_range(request, representation) {
            ByteRange::Whole => {
                let Some(body) = content(representation, 0, *length, context) else {
                    return self.refuse_content(context, now);
                };
                let head = self.head(Status::Ok, context, format_args!("{}", representation.whole));
                outgoing(Status::Ok, head, body, context)
            }
            ByteRange::Part { first, length: part } => {
                let Some(body) = content(representation, first, part, context) else {
                    return self.refuse_content(context, now);
                };
                let last = first + part - 1;
                let head = self.head(
                    Status::PartialContent,
                    context,
                    format_args!(
                        "Content-Range: bytes {first}-{last}/{length}\r\nContent-Length: {part}\r\n\
                         {content_type}{validators}"
                    ),
                );
                outgoing(Status::PartialContent, head, body, context)
            }
            ByteRange::Unsatisfiable => self.brief(
                Status::RangeNotSatisfiable,
                context,
                format_args!("Content-Range: bytes */{length}\r\n"),
            ),
        }
    }

    /// The response where content is asked for that is unavailable.
    #[cold]
    fn refuse_content(&mut self, context: ResponseContext, now: Instant) -> Outgoing {
        let status = match &mut self.source {
            Source::BuiltInPage(_) => Status::ServiceUnavailable,
            Source::Files(store) => store.refuse_content(now, &mut self.counters),
        };
        self.refuse(status, context)
    }

    /// A response with an error status.
    fn refuse(&mut self, status: Status, context: ResponseContext) -> Outgoing {
        if status == Status::ServiceUnavailable {
            self.brief(status, context, format_args!("Retry-After: 1\r\n"))
        } else {
            self.brief(status, context, format_args!(""))
        }
    }

    /// Sends the client to the directory's name with a slash at the end. The location is written anew from the
    /// normalised path, so that it never begins with two slashes, which would name another host.
    fn redirect(&mut self, target: &Target<'_>, context: ResponseContext) -> Outgoing {
        let path = percent_encode(&target.path, NOT_IN_PATH);
        let (mark, query) = target.query.map_or(("", ""), |query| ("?", query));
        self.brief(
            Status::MovedPermanently,
            context,
            format_args!("Location: /{path}/{mark}{query}\r\n"),
        )
    }

    /// A response whose content is its status.
    fn brief(&mut self, status: Status, context: ResponseContext, fields: Arguments<'_>) -> Outgoing {
        let context = context.with_status(status);
        let body = status.body();
        let length = body.len();
        let head = self.head(
            status,
            context,
            format_args!("Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n{fields}"),
        );
        outgoing(status, head, Body::Memory(Bytes::from_static(body.as_bytes())), context)
    }

    /// A response head. Heads are cut from a common block, so that most cost no allocation.
    fn head(&mut self, status: Status, context: ResponseContext, fields: Arguments<'_>) -> Bytes {
        self.heads.reserve(HEAD_SIZE);
        head::append(&mut self.heads, status, self.clock.text(), context.connection, fields);
        self.heads.split().freeze()
    }
}

/// Puts a response together; without content if the method was HEAD.
fn outgoing(status: Status, head: Bytes, body: Body, context: ResponseContext) -> Outgoing {
    let body = if context.head_only { Body::Empty } else { body };
    Outgoing {
        status,
        interim: Bytes::new(),
        head,
        body,
        after: context.after,
        access: None,
        complete_at: Some(context.complete_at),
    }
}

/// The range of a GET request; the field has no meaning for other methods (RFC 9110, section 14.2).
fn requested_range(request: &Request<'_, '_>, representation: &Representation) -> ByteRange {
    if !request.conditional || request.method != Method::Get {
        return ByteRange::Whole;
    }
    match request.value("range") {
        Some(value) if conditional::range_applies(request, representation) => {
            range::resolve(value, representation.length)
        }
        _ => ByteRange::Whole,
    }
}

/// `length` bytes of the content from offset `first`, which are within it, as the body of a response; `None` where they
/// are unavailable and the response has to have them.
fn content(representation: &Representation, first: u64, length: u64, context: ResponseContext) -> Option<Body> {
    if context.head_only || length == 0 {
        return Some(Body::Empty);
    }
    match &representation.content {
        // In memory, so the offsets fit.
        Content::Memory(bytes) => Some(Body::Memory(bytes.slice(first as usize..(first + length) as usize))),
        Content::File(file) => Some(Body::File(FilePart {
            file: Arc::clone(file),
            offset: first,
            remaining: length,
        })),
        Content::Unavailable => None,
    }
}
