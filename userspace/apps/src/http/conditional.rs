//! Conditional requests (RFC 9110, section 13).

use super::date;
use super::etag::EntityTag;
use super::representation::Representation;
use super::request::Request;

/// The outcome of the preconditions of a GET or HEAD request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precondition {
    /// Answer as if there were none.
    Met,
    /// The client has this representation already: 304.
    NotModified,
    /// The client wants another one: 412.
    Failed,
}

/// Evaluates the preconditions in the order of section 13.2.2.
pub(super) fn evaluate(request: &Request<'_, '_>, representation: &Representation) -> Precondition {
    if !request.conditional {
        return Precondition::Met;
    }
    let date_of = |name| request.value(name).and_then(date::parse);
    match any_lists(request, "if-match", representation, Comparison::Strong) {
        Some(false) => return Precondition::Failed,
        Some(true) => {}
        None => {
            let limit = date_of("if-unmodified-since");
            if modified_after(representation, limit) == Some(true) {
                return Precondition::Failed;
            }
        }
    }
    match any_lists(request, "if-none-match", representation, Comparison::Weak) {
        Some(true) => Precondition::NotModified,
        Some(false) => Precondition::Met,
        None => match modified_after(representation, date_of("if-modified-since")) {
            Some(false) => Precondition::NotModified,
            _ => Precondition::Met,
        },
    }
}

/// True where a Range field is to be applied: there is no If-Range, or it names this very representation.
pub(super) fn range_applies(request: &Request<'_, '_>, representation: &Representation) -> bool {
    if request.values("if-range").next().is_none() {
        return true;
    }
    // Several are contradictory: the whole representation is never wrong.
    let Some(value) = request.value("if-range") else {
        return false;
    };
    if value.starts_with(b"\"") || value.starts_with(b"W/") {
        representation.etag.equals_strongly(value)
    } else {
        // A time that was set (`cp -p`, tar) says nothing about the content before, so it is no strong validator.
        let date = date::parse(value);
        date.is_some() && date == representation.modified && representation.is_modified_genuine
    }
}

/// Whether the representation was modified after `limit`; `None` where either time is unknown.
fn modified_after(representation: &Representation, limit: Option<u64>) -> Option<bool> {
    Some(representation.modified? > limit?)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// A weak entity tag equals nothing.
    Strong,
    /// `W/` makes no difference.
    Weak,
}

/// Whether one of the fields `name` lists the representation; `None` without such a field.
fn any_lists(
    request: &Request<'_, '_>,
    name: &'static str,
    representation: &Representation,
    comparison: Comparison,
) -> Option<bool> {
    let mut found = None;
    for value in request.values(name) {
        let listed = lists(value, &representation.etag, comparison);
        found = Some(found.unwrap_or(false) || listed);
    }
    found
}

/// True where the list `value` is `*` or has the entity tag `etag`. What follows a syntax error is
/// not looked at. Tags may have commas within their quotes, so the list cannot be split at commas.
fn lists(value: &[u8], etag: &EntityTag, comparison: Comparison) -> bool {
    if value == b"*" {
        return true;
    }
    let mut rest = value;
    loop {
        let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','));
        let Some(start) = start else { return false };
        rest = &rest[start..];
        let Some(opaque) = rest.strip_prefix(b"W/").unwrap_or(rest).strip_prefix(b"\"") else {
            return false;
        };
        let Some(length) = opaque.iter().position(|&byte| byte == b'"') else {
            return false;
        };
        let after = &opaque[length + 1..];
        let tag = &rest[..rest.len() - after.len()];
        let equal = match comparison {
            Comparison::Strong => etag.equals_strongly(tag),
            Comparison::Weak => etag.equals_weakly(tag),
        };
        if equal {
            return true;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tag_lists() {
        use Comparison::{Strong, Weak};
        for (value, comparison, expected) in [
            ("\"a-1\"", Strong, true),
            ("\"a-1\"", Weak, true),
            ("W/\"a-1\"", Strong, false),
            ("W/\"a-1\"", Weak, true),
            ("*", Strong, true),
            ("\"x\", \"a-1\"", Strong, true),
            ("\"x\",W/\"y\" ,, \"a-1\"", Strong, true),
            ("\"a,\"a-1\"", Strong, false),
            ("\"x,\",\"a-1\"", Strong, true),
            ("\"a-1", Weak, false),
            ("a-1", Weak, false),
            ("a-1, \"a-1\"", Weak, false),
            ("\"A-1\"", Weak, false),
            ("w/\"a-1\"", Weak, false),
            ("\"\"", Weak, false),
            ("", Weak, false),
        ] {
            assert_eq!(
                lists(value.as_bytes(), &EntityTag::fixed("a-1"), comparison),
                expected,
                "{value}"
            );
        }
    }
}
