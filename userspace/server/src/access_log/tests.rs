//! Records on their way to files, pipes and full disks.

use std::fs;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

fn config(path: &Path) -> AccessLogConfig {
    AccessLogConfig {
        path: Some(path.to_owned()),
        queue: 8,
        ..AccessLogConfig::default()
    }
}

fn put(sink: &Arc<dyn AccessSink>, request: &str) {
    let mut record = sink.take();
    record.request = request.as_bytes().to_vec();
    sink.put(record);
}

fn sink(log: &AccessLog) -> Arc<dyn AccessSink> {
    log.of_shard(0).expect("an access log").sink
}

fn wait_for(log: &AccessLog, what: impl Fn(&AccessLogCounts) -> bool) {
    let began = Instant::now();
    while !what(&log.counts()) {
        assert!(began.elapsed() < TIMEOUT, "{:?}", log.counts());
        thread::sleep(POLL_INTERVAL);
    }
}

#[test]
fn what_is_put_before_the_end_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let mut log = AccessLog::start(&config(&path)).unwrap();
    for shard in [0, 1] {
        put(&log.of_shard(shard).unwrap().sink, "GET / HTTP/1.1");
    }
    log.finish();
    assert_eq!(
        fs::read_to_string(&path).unwrap().matches("\"GET / HTTP/1.1\"").count(),
        2
    );
    assert_eq!((log.counts().written, log.counts().lost_queue_full), (2, 0));
}

#[test]
fn after_a_rename_the_log_goes_on_in_a_new_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let renamed = directory.path().join("access.log.1");
    let mut log = AccessLog::start(&config(&path)).unwrap();
    let sink = sink(&log);
    put(&sink, "first");
    fs::rename(&path, &renamed).unwrap();
    log.reopen().unwrap();
    wait_for(&log, |counts| counts.written == 1);
    // The writer takes the new file after what was there before.
    wait_for(&log, |_| log.shared.next().is_none());
    put(&sink, "second");
    log.finish();
    assert!(fs::read_to_string(&renamed).unwrap().contains("\"first\""));
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"second\"") && !text.contains("\"first\""), "{text}");
    assert_eq!(log.counts().reopened, 1);
}

#[test]
fn where_it_cannot_be_opened_the_old_file_is_written_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs/access.log");
    let error = AccessLog::start(&config(&path)).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("cannot open the access log"), "{error}");
    fs::create_dir(directory.path().join("logs")).unwrap();
    let mut log = AccessLog::start(&config(&path)).unwrap();
    let elsewhere = directory.path().join("elsewhere");
    fs::rename(directory.path().join("logs"), &elsewhere).unwrap();
    assert!(log.reopen().is_err());
    put(&sink(&log), "GET /");
    log.finish();
    assert!(
        fs::read_to_string(elsewhere.join("access.log"))
            .unwrap()
            .contains("GET /")
    );
}

#[test]
fn nobody_waits_for_a_reader_that_does_not_read_and_what_is_lost_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fifo");
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    // Nobody has it open for reading.
    assert!(AccessLog::start(&config(&path)).is_err());
    let _reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let log = AccessLog::start(&config(&path)).unwrap();
    let sink = sink(&log);
    // More than pipe, batch and queue hold.
    let request = "x".repeat(1000);
    for _ in 0..1000 {
        put(&sink, &request);
    }
    wait_for(&log, |counts| counts.lost_queue_full > 0);
}

#[test]
fn a_full_disk_is_counted_and_does_not_end_the_log() {
    let log = AccessLog::start(&config(Path::new("/dev/full"))).unwrap();
    let sink = sink(&log);
    put(&sink, "GET /");
    wait_for(&log, |counts| counts.lost_write_failed == 1);
    put(&sink, "GET /");
    wait_for(&log, |counts| counts.lost_write_failed == 2);
    assert_eq!(log.counts().written, 0);
}

#[test]
fn records_are_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let log = AccessLog::start(&config(&directory.path().join("access.log"))).unwrap();
    let sink = sink(&log);
    let mut record = sink.take();
    record.request = Vec::with_capacity(4321);
    sink.put(record);
    wait_for(&log, |counts| counts.written == 1);
    let began = Instant::now();
    while sink.take().request.capacity() != 4321 {
        assert!(began.elapsed() < TIMEOUT, "it did not come back");
    }
}

#[test]
fn without_a_path_nothing_is_logged() {
    let log = AccessLog::start(&AccessLogConfig::default()).unwrap();
    assert!(log.of_shard(0).is_none() && log.writer.is_none());
    log.reopen().unwrap();
    assert_eq!(log.counts(), AccessLogCounts::default());
}
