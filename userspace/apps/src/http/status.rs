//! The status codes this server answers with (RFC 9110, section 15).

macro_rules! statuses {
    ($($variant:ident = $code:literal $reason:literal,)+) => {
        /// A status code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub(super) enum Status {
            $($variant = $code,)+
        }

        impl Status {
            /// Code and reason phrase, as in the status line.
            pub(super) const fn text(self) -> &'static str {
                match self { $(Self::$variant => concat!($code, " ", $reason),)+ }
            }

            /// The body of a response that has nothing else to say.
            pub(super) const fn body(self) -> &'static str {
                match self { $(Self::$variant => concat!($code, " ", $reason, "\n"),)+ }
            }
        }
    };
}

statuses! {
    Ok = 200 "OK",
    PartialContent = 206 "Partial Content",
    MovedPermanently = 301 "Moved Permanently",
    NotModified = 304 "Not Modified",
    BadRequest = 400 "Bad Request",
    Forbidden = 403 "Forbidden",
    NotFound = 404 "Not Found",
    MethodNotAllowed = 405 "Method Not Allowed",
    RequestTimeout = 408 "Request Timeout",
    PreconditionFailed = 412 "Precondition Failed",
    ContentTooLarge = 413 "Content Too Large",
    UriTooLong = 414 "URI Too Long",
    RangeNotSatisfiable = 416 "Range Not Satisfiable",
    ExpectationFailed = 417 "Expectation Failed",
    RequestHeaderFieldsTooLarge = 431 "Request Header Fields Too Large",
    InternalServerError = 500 "Internal Server Error",
    NotImplemented = 501 "Not Implemented",
    ServiceUnavailable = 503 "Service Unavailable",
    HttpVersionNotSupported = 505 "HTTP Version Not Supported",
}

impl Status {
    /// The code as a number.
    pub(super) const fn code(self) -> u16 {
        self as u16
    }

    /// True where the request was answered as the client wished (2xx).
    pub(super) const fn is_success(self) -> bool {
        self.code() < 300
    }
}
