//! `/`: the dashboard, one page without outside assets.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::HeaderValue;
use sha2::{Digest as _, Sha256};

const HTML: &str = include_str!("dashboard.html");

/// The dashboard and what a browser may do with it.
pub(super) struct Page {
    pub(super) html: &'static str,
    /// For `Content-Security-Policy`.
    pub(super) policy: HeaderValue,
}

impl Page {
    pub(super) fn new() -> Self {
        let policy = format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            hash("style"),
            hash("script")
        );
        Self {
            html: HTML,
            // Letters, digits and punctuation.
            policy: HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'")),
        }
    }
}

/// The hash of the page's one element of this name (CSP Level 3, section 2.3.1).
fn hash(element: &str) -> String {
    let (start, end) = (format!("<{element}>"), format!("</{element}>"));
    let content = HTML.split_once(&start).and_then(|(_, rest)| rest.split_once(&end));
    let content = content.map_or("", |(content, _)| content);
    format!("sha256-{}", STANDARD.encode(Sha256::digest(content)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_no_outside_assets_and_nothing_its_policy_forbids() {
        for element in ["style", "script"] {
            assert_eq!(HTML.matches(&format!("<{element}")).count(), 1, "{element}");
            assert_eq!(HTML.matches(&format!("<{element}>")).count(), 1, "{element}");
        }
        for forbidden in [
            "src=",
            "@import",
            "url(",
            " style=\"",
            " onclick",
            " onload",
            "innerHTML",
        ] {
            assert!(!HTML.contains(forbidden), "{forbidden}");
        }
        let policy = Page::new().policy;
        let policy = policy.to_str().unwrap();
        assert!(
            policy.contains("script-src 'sha256-") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert!(HTML.len() < 32 << 10, "{} bytes", HTML.len());
    }
}
