//! Records as lines.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use tidegate_apps::http::AccessRecord;

use super::AccessLogFormat;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A record as a JSON object. Names are those of nginx's variables where it has one.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    remote_addr: String,
    remote_port: u16,
    server_addr: String,
    server_port: u16,
    request: Cow<'a, str>,
    status: u16,
    body_bytes_sent: u64,
    http_referer: Cow<'a, str>,
    http_user_agent: Cow<'a, str>,
    /// In seconds.
    request_time: f64,
    connection_requests: u32,
    shard: u32,
    complete: bool,
}

/// Appends the line of `record`, which is of shard `shard`.
pub(super) fn append(text: &mut Vec<u8>, format: AccessLogFormat, shard: u32, record: &AccessRecord) {
    match format {
        AccessLogFormat::Combined => append_combined(text, record),
        AccessLogFormat::Json => append_json(text, shard, record),
    }
    text.push(b'\n');
}

fn append_combined(text: &mut Vec<u8>, record: &AccessRecord) {
    // Writing to memory does not fail.
    let _ = write!(text, "{} - - [{}] \"", record.peer.ip(), clf_time(record.time));
    append_escaped(text, &record.request);
    let _ = write!(text, "\" {:03} {} \"", record.status, record.body_bytes);
    append_escaped(text, &record.referer);
    text.extend_from_slice(b"\" \"");
    append_escaped(text, &record.user_agent);
    text.push(b'"');
}

/// Appends `value` as nginx does: what could end the field or the line, or is no ASCII, as `\xXX`.
fn append_escaped(text: &mut Vec<u8>, value: &[u8]) {
    if value.is_empty() {
        text.push(b'-');
    }
    for &byte in value {
        match byte {
            b'"' | b'\\' | ..b' ' | 0x7f.. => {
                let _ = write!(text, "\\x{byte:02X}");
            }
            _ => text.push(byte),
        }
    }
}

fn append_json(text: &mut Vec<u8>, shard: u32, record: &AccessRecord) {
    let line = Line {
        time: rfc3339(record.time),
        remote_addr: record.peer.ip().to_string(),
        remote_port: record.peer.port(),
        server_addr: record.local.ip().to_string(),
        server_port: record.local.port(),
        request: String::from_utf8_lossy(&record.request),
        status: record.status,
        body_bytes_sent: record.body_bytes,
        http_referer: String::from_utf8_lossy(&record.referer),
        http_user_agent: String::from_utf8_lossy(&record.user_agent),
        request_time: record.elapsed.as_micros() as f64 / 1e6,
        connection_requests: record.connection_requests,
        shard,
        complete: record.complete,
    };
    let _ = serde_json::to_writer(text, &line);
}

/// As in `2026-11-30T03:17:32.120Z`. It ends with the year 9999.
fn rfc3339(since_1970: Duration) -> String {
    let last = Duration::from_secs(253_402_300_799);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since_1970.min(last)).to_string()
}

/// The same as in `30/Nov/2026:03:17:32 +0000`.
fn clf_time(since_1970: Duration) -> String {
    let time = rfc3339(since_1970);
    let month = time[5..7].parse::<usize>().map_or("", |month| MONTHS[month - 1]);
    format!("{}/{month}/{}:{} +0000", &time[8..10], &time[..4], &time[11..19])
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn record() -> AccessRecord {
        AccessRecord {
            peer: "[2001:2::2]:40000".parse().unwrap(),
            local: "[2001:2::1]:80".parse().unwrap(),
            connection_requests: 3,
            request: b"GET /a HTTP/1.1".to_vec(),
            user_agent: b"curl/8".to_vec(),
            status: 200,
            body_bytes: 13,
            complete: true,
            time: Duration::from_millis(1_796_008_652_120),
            elapsed: Duration::from_micros(1500),
            ..AccessRecord::default()
        }
    }

    fn line(format: AccessLogFormat, record: &AccessRecord) -> String {
        let mut text = Vec::new();
        append(&mut text, format, 1, record);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn combined_is_that_of_nginx() {
        assert_eq!(
            line(AccessLogFormat::Combined, &record()),
            "2001:2::2 - - [30/Nov/2026:03:17:32 +0000] \"GET /a HTTP/1.1\" 200 13 \"-\" \"curl/8\"\n"
        );
    }

    #[test]
    fn json_has_all_there_is() {
        let value: Value = serde_json::from_str(&line(AccessLogFormat::Json, &record())).unwrap();
        let expected = serde_json::json!({
            "time": "2026-11-30T03:17:32.120Z", "remote_addr": "2001:2::2", "remote_port": 40000,
            "server_addr": "2001:2::1", "server_port": 80, "request": "GET /a HTTP/1.1", "status": 200,
            "body_bytes_sent": 13, "http_referer": "", "http_user_agent": "curl/8", "request_time": 0.0015,
            "connection_requests": 3, "shard": 1, "complete": true
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn no_octet_of_a_peer_ends_a_field_or_a_line() {
        let all: Vec<u8> = (0..=255).collect();
        let record = AccessRecord {
            request: all.clone(),
            referer: all.clone(),
            user_agent: all,
            status: 0,
            ..record()
        };
        let combined = line(AccessLogFormat::Combined, &record);
        assert_eq!(combined.matches('\n').count(), 1);
        assert_eq!(combined.matches('"').count(), 6, "{combined}");
        assert!(
            combined.trim_end().chars().all(|c| matches!(c, ' '..='~')),
            "{combined}"
        );
        assert!(combined.contains("\\x00") && combined.contains("\\x22") && combined.contains("\\x5C"));
        assert!(combined.contains("\" 000 13 \""), "{combined}");
        let json = line(AccessLogFormat::Json, &record);
        assert_eq!(json.matches('\n').count(), 1);
        assert!(serde_json::from_str::<Value>(&json).is_ok(), "{json}");
    }

    #[test]
    fn times_of_the_whole_range_are_written() {
        assert_eq!(clf_time(Duration::ZERO), "01/Jan/1970:00:00:00 +0000");
        assert_eq!(clf_time(Duration::MAX), "31/Dec/9999:23:59:59 +0000");
    }
}
