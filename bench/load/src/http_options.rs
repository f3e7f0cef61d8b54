//! The requests of a client, and the limits of the responses.

use std::time::Duration;

use tidegate_args::UsageError;
use tidegate_args::request::Request;

use crate::http::MAX_HEAD;
use crate::{Close, Plan, Workload};

/// All requests that are under way on a connection, in bytes at most: as much as the transports take at once.
const MAX_REQUESTS: usize = tidegate_kernel_host::SEND_BUFFER;

/// The requests of a client, and the limits of the responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// The request that is sent again and again.
    pub request: Request,
    /// Requests on each connection, after which it is ended and, if it was to stay open, replaced. Without it, those of
    /// [`Workload::Cps`] have one, and the others any number. Not for the workloads that count no requests.
    pub requests_per_connection: Option<u32>,
    /// The time a complete response, or the server's end of a connection, is waited for; of [`Workload::Throughput`]
    /// the next bytes. [`Workload::Hold`] has its own.
    pub timeout: Duration,
    /// The longest head of a response, and of what describes chunks, in bytes.
    pub max_head: usize,
}

impl HttpOptions {
    /// The timeout where nothing else is asked for: as long as a SYN is waited for.
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    /// Checks that the options are some for `plan`.
    ///
    /// # Errors
    ///
    /// A connection has no request, all that are under way are more than a connection takes, or the fields do not go
    /// together.
    pub(crate) fn check(&self, plan: &Plan) -> Result<(), UsageError> {
        if self.requests_per_connection == Some(0) {
            return Err(UsageError("a connection needs at least one request".to_owned()));
        }
        let keep_alive = !matches!(plan.workload.on_connections(), Workload::Cps { close: Close::Server });
        self.request.check(keep_alive)?;
        let length = self.request.to_bytes(&plan.url, false).len();
        let pipeline = plan.workload.pipeline() as usize;
        if length.saturating_mul(pipeline) > MAX_REQUESTS {
            return Err(UsageError(format!(
                "requests of {length} bytes, {pipeline} under way on a connection: together they may have {MAX_REQUESTS} \
                 bytes; make the body smaller, or the pipeline shorter"
            )));
        }
        Ok(())
    }
}

impl Default for HttpOptions {
    /// GET requests on connections that the workload ends, or nobody.
    fn default() -> Self {
        Self {
            request: Request::default(),
            requests_per_connection: None,
            timeout: Self::TIMEOUT,
            max_head: MAX_HEAD,
        }
    }
}
