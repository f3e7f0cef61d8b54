//! Files: what is found, how it is described, and which part of it is sent.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use super::*;
use crate::http::{Counter, date};

/// Longer than two changes of a file can have the same time.
const SETTLING_TIME: Duration = Duration::from_millis(50);

#[test]
fn a_file_is_described_and_sent() {
    let mut site = Site::new(|_| {});
    let reply = site.get("/hello.txt");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.text(), "hello, world\n");
    assert_eq!(reply.field("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(reply.field("Content-Length"), Some("13"));
    assert_eq!(reply.field("Accept-Ranges"), Some("bytes"));
    assert_eq!(reply.field("Server"), Some("tidegate"));
    assert_eq!(reply.field("Connection"), None);
    let etag = reply.field("ETag").unwrap();
    assert!(etag.starts_with("\"d-") && etag.ends_with('"'), "{etag}");
    let sent_at = date::parse(reply.field("Date").unwrap().as_bytes()).unwrap();
    let modified = date::parse(reply.field("Last-Modified").unwrap().as_bytes()).unwrap();
    assert!(modified <= sent_at);
}

#[test]
fn paths_lead_to_files() {
    let mut site = Site::new(|_| {});
    fs::write(site.path(".dotfile"), "hidden").unwrap();
    for (target, body) in [
        ("/", "the index"),
        ("/index.html", "the index"),
        ("/?query", "the index"),
        ("/docs/", "the docs"),
        ("/docs/index.html", "the docs"),
        ("//docs//index.html", "the docs"),
        ("/docs/../hello.txt", "hello, world\n"),
        ("/docs/%2e%2e/hello.txt", "hello, world\n"),
        ("/%68ello.txt", "hello, world\n"),
        ("/docs/a%20b.txt", "a blank"),
        ("/nothing", ""),
        ("/.dotfile", "hidden"),
    ] {
        let reply = site.get(target);
        assert_eq!((reply.status, reply.text()), (200, body), "{target}");
    }
    for target in [
        "/missing",
        "/missing/",
        "/hello.txt/",
        "/hello.txt/x",
        "/empty%20dir/",
        "/docs/missing",
    ] {
        assert_eq!(site.get(target).status, 404, "{target}");
    }
}

#[test]
fn a_directory_is_redirected_to_its_slash_and_to_no_other_host() {
    let mut site = Site::new(|_| {});
    fs::create_dir(site.path("100%")).unwrap();
    for (target, location) in [
        ("/docs", "/docs/"),
        ("/docs?a=b", "/docs/?a=b"),
        ("/docs?", "/docs/?"),
        ("//docs", "/docs/"),
        ("//example.com/%2e%2e/docs", "/docs/"),
        ("/empty%20dir", "/empty%20dir/"),
        ("/100%25", "/100%25/"),
        ("http://example.com/docs", "/docs/"),
    ] {
        let reply = site.get(target);
        assert_eq!(
            (reply.status, reply.field("Location")),
            (301, Some(location)),
            "{target}"
        );
    }
}

#[test]
fn head_has_the_fields_of_get() {
    for limit in [0, 1 << 20] {
        let mut site = Site::new(|config| config.cache_file_limit = limit);
        // The tag of a file that is not cached is a weak one at first.
        thread::sleep(SETTLING_TIME);
        for (target, fields) in [
            ("/", ""),
            ("/hello.txt", ""),
            ("/large.bin", ""),
            ("/missing", ""),
            ("/docs", ""),
            ("/hello.txt", "If-None-Match: *\r\n"),
            ("/hello.txt", "If-Match: \"x\"\r\n"),
        ] {
            let get = site.get_with(target, fields);
            let head = site.head(target, fields);
            assert_eq!((head.status, head.fields), (get.status, get.fields), "{target}");
        }
    }
}

#[test]
fn no_target_leads_out_of_the_root() {
    let mut site = Site::new(|_| {});
    let outside = site.directory.path().to_owned();
    symlink("../secret.txt", site.path("relative.txt")).unwrap();
    symlink(outside.join("secret.txt"), site.path("absolute.txt")).unwrap();
    symlink("..", site.path("parent")).unwrap();
    symlink("hello.txt", site.path("inside.txt")).unwrap();
    for (target, status) in [
        ("/../secret.txt", 400),
        ("/docs/../../secret.txt", 400),
        ("/%2e%2e/secret.txt", 400),
        ("/.%2e/secret.txt", 400),
        ("/..%2fsecret.txt", 400),
        ("/docs%2f..%2f..%2fsecret.txt", 400),
        ("/..\\secret.txt", 400),
        ("/..%5csecret.txt", 400),
        ("/hello.txt%00", 400),
        ("/%00", 400),
        ("/%252e%252e/secret.txt", 404),
        ("/relative.txt", 403),
        ("/absolute.txt", 403),
        ("/parent/secret.txt", 403),
        ("/parent/", 403),
        ("/parent", 403),
    ] {
        let reply = site.get(target);
        assert_eq!(reply.status, status, "{target}");
        assert!(!reply.text().contains("secret"), "{target}");
    }
    assert_eq!(site.get("/inside.txt").text(), "hello, world\n");
}

#[test]
fn conditions_on_the_entity_tag() {
    let mut site = Site::new(|_| {});
    let etag = site.get("/hello.txt").field("ETag").unwrap().to_owned();
    for (fields, status) in [
        (format!("If-None-Match: {etag}\r\n"), 304),
        (format!("If-None-Match: W/{etag}\r\n"), 304),
        (format!("If-None-Match: \"x\", {etag}\r\n"), 304),
        (format!("If-None-Match: \"x\"\r\nIf-None-Match: {etag}\r\n"), 304),
        ("If-None-Match: *\r\n".to_owned(), 304),
        ("If-None-Match: \"x\"\r\n".to_owned(), 200),
        (format!("If-Match: {etag}\r\n"), 200),
        ("If-Match: *\r\n".to_owned(), 200),
        (format!("If-Match: W/{etag}\r\n"), 412),
        ("If-Match: \"x\"\r\n".to_owned(), 412),
        (format!("If-Match: \"x\"\r\nIf-None-Match: {etag}\r\n"), 412),
    ] {
        let reply = site.get_with("/hello.txt", &fields);
        assert_eq!(reply.status, status, "{fields:?}");
        if status == 304 {
            assert_eq!(reply.field("ETag"), Some(etag.as_str()));
            assert!(reply.field("Last-Modified").is_some() && reply.field("Date").is_some());
        }
    }
}

#[test]
fn conditions_on_the_time() {
    let mut site = Site::new(|_| {});
    let modified = SystemTime::UNIX_EPOCH + Duration::new(784_111_777, 500_000_000);
    let file = fs::File::options().write(true).open(site.path("hello.txt")).unwrap();
    file.set_modified(modified).unwrap();
    let (before, exact, after) = (
        date::format(784_111_776),
        date::format(784_111_777),
        date::format(784_111_778),
    );
    for (fields, status) in [
        (format!("If-Modified-Since: {before}\r\n"), 200),
        (format!("If-Modified-Since: {exact}\r\n"), 304),
        (format!("If-Modified-Since: {after}\r\n"), 304),
        ("If-Modified-Since: some day\r\n".to_owned(), 200),
        (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {after}\r\n"), 200),
        (format!("If-Unmodified-Since: {before}\r\n"), 412),
        (format!("If-Unmodified-Since: {exact}\r\n"), 200),
        (format!("If-Match: *\r\nIf-Unmodified-Since: {before}\r\n"), 200),
    ] {
        assert_eq!(site.get_with("/hello.txt", &fields).status, status, "{fields:?}");
    }
    assert_eq!(site.get("/hello.txt").field("Last-Modified"), Some(exact.as_str()));
}

#[test]
fn single_ranges() {
    for limit in [0, 1 << 20] {
        let mut site = Site::new(|config| config.cache_file_limit = limit);
        let content = pattern(LARGE);
        for (range, first, last) in [
            ("0-0", 0, 0),
            ("0-99", 0, 99),
            ("100-", 100, LARGE - 1),
            ("-100", LARGE - 100, LARGE - 1),
            ("299999-400000", LARGE - 1, LARGE - 1),
        ] {
            let reply = site.get_with("/large.bin", &format!("Range: bytes={range}\r\n"));
            assert_eq!(reply.status, 206, "{range}");
            assert!(reply.body == content[first..=last], "{range}");
            assert_eq!(
                reply.field("Content-Range"),
                Some(format!("bytes {first}-{last}/{LARGE}").as_str())
            );
            assert!(reply.field("ETag").is_some() && reply.field("Content-Type").is_some());
        }
        let reply = site.get_with("/large.bin", "Range: bytes=300000-\r\n");
        assert_eq!(
            (reply.status, reply.field("Content-Range")),
            (416, Some("bytes */300000"))
        );
        for range in ["0-1,5-6", "5-4", "x"] {
            let reply = site.get_with("/large.bin", &format!("Range: bytes={range}\r\n"));
            assert_eq!((reply.status, reply.body.len()), (200, LARGE), "{range}");
        }
        let head = site.head("/large.bin", "Range: bytes=0-1\r\n");
        assert_eq!((head.status, head.field("Content-Length")), (200, Some("300000")));
    }
}

#[test]
fn a_range_only_of_the_representation_the_client_has() {
    let mut site = Site::new(|_| {});
    let reply = site.get("/hello.txt");
    let etag = reply.field("ETag").unwrap();
    let modified = reply.field("Last-Modified").unwrap();
    for (condition, status) in [
        (etag.to_owned(), 206),
        (modified.to_owned(), 206),
        (format!("W/{etag}"), 200),
        ("\"x\"".to_owned(), 200),
        (date::format(784_111_777), 200),
        (date::format(32_503_680_000), 200),
        ("x".to_owned(), 200),
    ] {
        let fields = format!("Range: bytes=0-4\r\nIf-Range: {condition}\r\n");
        let reply = site.get_with("/hello.txt", &fields);
        assert_eq!(reply.status, status, "{condition}");
        assert_eq!(reply.text(), if status == 206 { "hello" } else { "hello, world\n" });
    }
}

#[test]
fn a_cached_file_is_compared_with_the_disk_once_a_second() {
    let mut site = Site::new(|_| {});
    assert_eq!(site.get("/hello.txt").text(), "hello, world\n");
    fs::write(site.path("hello.txt"), "changed").unwrap();
    site.driver.advance(Duration::from_millis(999));
    assert_eq!(site.get("/hello.txt").text(), "hello, world\n");
    site.driver.advance(Duration::from_millis(1));
    let changed = site.get("/hello.txt");
    assert_eq!(changed.text(), "changed");

    // Same length, other time.
    fs::write(site.path("hello.txt"), "CHANGED").unwrap();
    let file = fs::File::options().write(true).open(site.path("hello.txt")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(1000))
        .unwrap();
    site.driver.advance(Duration::from_secs(1));
    let again = site.get("/hello.txt");
    assert_eq!(again.text(), "CHANGED");
    assert_ne!(again.field("ETag"), changed.field("ETag"));

    fs::remove_file(site.path("hello.txt")).unwrap();
    site.driver.advance(Duration::from_secs(1));
    assert_eq!(site.get("/hello.txt").status, 404);
    let counters = site.driver.application.counters();
    assert_eq!(
        (counters.get(Counter::CacheHits), counters.get(Counter::CacheMisses)),
        (1, 3)
    );
}

#[test]
fn without_a_root_there_is_one_page() {
    let mut driver = built_in(|_| {});
    let reply = one(&mut driver, &get_request("/", ""));
    assert_eq!(reply.field("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(reply.text().contains("tidegate"));
    let etag = reply.field("ETag").unwrap();
    let again = one(&mut driver, &get_request("/", &format!("If-None-Match: {etag}\r\n")));
    assert_eq!(again.status, 304);
    let part = one(&mut driver, &get_request("/", "Range: bytes=0-8\r\n"));
    assert_eq!((part.status, part.text()), (206, "<!DOCTYPE"));
    assert_eq!(one(&mut driver, &get_request("/favicon.ico", "")).status, 404);
}

/// Puts `content` in the place of the file's, as `cp -p` does it.
fn replace_in_place(path: &Path, content: &[u8]) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, content).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(modified).unwrap();
}

/// Puts a new file with `content` in the place of the file, as `cp -p` and `mv` do it.
fn replace_by_rename(path: &Path, content: &[u8]) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    let file = fs::File::options().write(true).open(&new).unwrap();
    file.set_modified(modified).unwrap();
    fs::rename(&new, path).unwrap();
}

#[test]
fn a_file_replaced_with_the_same_size_and_time_is_another_version() {
    for (replace, limit, settled) in [
        (replace_in_place as fn(&Path, &[u8]), 1 << 20, true),
        (replace_in_place, 1 << 20, false),
        (replace_in_place, 0, true),
        (replace_by_rename, 1 << 20, true),
        (replace_by_rename, 1 << 20, false),
        (replace_by_rename, 0, true),
    ] {
        let mut site = Site::new(|config| config.cache_file_limit = limit);
        if settled {
            thread::sleep(SETTLING_TIME);
        }
        let old = site.get("/hello.txt");
        let old_tag = old.field("ETag").unwrap();
        assert!(!old_tag.starts_with("W/"), "{old_tag}");
        replace(&site.path("hello.txt"), b"HELLO, WORLD\n");
        site.driver.advance(Duration::from_secs(1));
        if settled {
            thread::sleep(SETTLING_TIME);
        }

        let part = site.get_with("/hello.txt", &format!("Range: bytes=0-4\r\nIf-Range: {old_tag}\r\n"));
        assert_eq!((part.status, part.text()), (200, "HELLO, WORLD\n"));
        let new = site.get_with("/hello.txt", &format!("If-None-Match: {old_tag}\r\n"));
        assert_eq!((new.status, new.text()), (200, "HELLO, WORLD\n"));
        assert_ne!(new.field("ETag"), Some(old_tag));
        assert_eq!(
            site.get_with("/hello.txt", &format!("If-Match: {old_tag}\r\n")).status,
            412
        );
        assert_eq!(new.field("Last-Modified"), old.field("Last-Modified"));
    }
}

#[test]
fn a_time_that_was_set_is_no_validator_of_a_range() {
    let mut site = Site::new(|_| {});
    let file = fs::File::options().write(true).open(site.path("hello.txt")).unwrap();
    for second in [784_111_777, 32_503_680_000] {
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second))
            .unwrap();
        site.driver.advance(Duration::from_secs(1));
        let date = site.get("/hello.txt").field("Last-Modified").unwrap().to_owned();
        let fields = format!("Range: bytes=0-4\r\nIf-Range: {date}\r\n");
        assert_eq!(site.get_with("/hello.txt", &fields).status, 200, "{date}");
    }
}

#[test]
fn a_file_that_was_just_written_has_a_weak_tag_unless_its_content_is_in_memory() {
    let mut site = Site::new(|config| config.cache_file_limit = 1000);
    // A time that is not over yet.
    fs::write(site.path("hello.txt"), "hello, world\n").unwrap();
    assert!(site.get("/hello.txt").field("ETag").unwrap().starts_with('"'));
    thread::sleep(SETTLING_TIME);
    let settled = site.get("/large.bin").field("ETag").unwrap().to_owned();
    assert!(settled.starts_with('"'));
    for _ in 0..100 {
        fs::write(site.path("large.bin"), pattern(LARGE)).unwrap();
        let tag = site.get("/large.bin").field("ETag").unwrap().to_owned();
        if tag.starts_with("W/\"") {
            let fields = format!("Range: bytes=0-4\r\nIf-Range: {tag}\r\n");
            assert_eq!(site.get_with("/large.bin", &fields).status, 200);
            return;
        }
        // More than 20 ms passed before it was asked for.
    }
    panic!("no weak tag");
}

#[test]
fn other_settings_count_from_then_on_and_a_cache_that_is_still_right_stays() {
    let mut site = Site::new(|_| {});
    let hits = |driver: &Driver<Http>| driver.application.counters().get(Counter::CacheHits);
    for _ in 0..2 {
        assert_eq!(one(&mut site.driver, &get_request("/hello.txt", "")).status, 200);
    }
    let before = hits(&site.driver);
    assert!(before > 0);
    site.driver.application.work_as(Http::new(site.config.clone()).unwrap());
    one(&mut site.driver, &get_request("/hello.txt", ""));
    assert_eq!(hits(&site.driver), before + 1, "the cache is still there");

    let root = site.directory.path().join("other");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("hello.txt"), "hello from elsewhere").unwrap();
    let config = Config {
        root: Some(root),
        keepalive_requests: 5,
        ..site.config.clone()
    };
    site.driver.application.work_as(Http::new(config).unwrap());
    let reply = one(&mut site.driver, &get_request("/hello.txt", ""));
    assert_eq!(reply.text(), "hello from elsewhere");
    // The limit counts for the connection there is.
    let reply = one(&mut site.driver, &get_request("/hello.txt", ""));
    assert_eq!(reply.field("Connection"), Some("close"));
}
