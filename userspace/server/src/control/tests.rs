use std::sync::mpsc;

use tidegate_control::{Client as ControlClient, Info, State};

use super::*;
use crate::access_log::{AccessLog, AccessLogConfig};
use crate::drain::Drain;
use crate::main_loop::{self, MainLoop};
use crate::serve::Past;
use crate::settings::Settings;
use crate::signals::Waker;

/// A socket in front of a main loop without an interface, which ends when the socket is dropped.
struct Server {
    socket: ControlSocket,
    directory: tempfile::TempDir,
    // Dropped to end the main loop.
    _running: mpsc::Sender<()>,
}

fn server() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let (waker, woken) = Waker::new();
    let (caller, calls) = main_loop::calls(waker);
    let config = Config {
        path: Some(directory.path().join("control")),
        max_clients: 3,
        ..Config::default()
    };
    let mut socket = config.open(&caller).unwrap().expect("a socket");
    socket.publish(false).unwrap();
    let (running, ended) = mpsc::channel();
    thread::spawn(move || {
        let mut settings = Settings::of_test();
        let mut access_log = AccessLog::start(&AccessLogConfig::default()).unwrap();
        let mut drain = Drain::default();
        while ended.try_recv() == Err(mpsc::TryRecvError::Empty) {
            let _ = woken.recv_timeout(Duration::from_millis(50));
            calls.make(&mut MainLoop {
                serving: None,
                past: &Past::default(),
                drain: &mut drain,
                given: &mut settings.clone(),
                settings: &mut settings,
                access_log: &mut access_log,
            });
        }
    });
    Server {
        socket,
        directory,
        _running: running,
    }
}

#[test]
fn requests_are_answered_one_after_the_other() {
    let server = server();
    let mut client = ControlClient::connect(&server.socket.path).unwrap();
    let info: Info = client.call(&Request::Info).unwrap();
    assert_eq!((info.pid, info.state), (std::process::id(), State::Waiting));
    client.call::<()>(&Request::Drain).unwrap();
    client.call::<()>(&Request::Reopen).unwrap();
    client.call::<Info>(&Request::Info).unwrap();
}

#[test]
fn lines_that_are_no_requests_are_answered_with_a_sentence() {
    let server = server();
    let stream = UnixStream::connect(&server.socket.path).unwrap();
    let mut lines = BufReader::new(&stream);
    let mut answer = |request: &[u8]| {
        (&stream).write_all(request).unwrap();
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line
    };
    assert!(answer(b"{\"command\":\"explode\"}\n").contains("explode"));
    assert!(answer(b"\xff\n").contains("not a request"));
    assert!(answer(b"{\"command\":\"info\"}\n").starts_with("{\"ok\":"));
    assert!(answer(&vec![b' '; MAX_LINE as usize]).contains("65536 octets"));
}

#[test]
fn clients_beyond_the_limit_are_refused_until_one_leaves() {
    let server = server();
    let connect = || ControlClient::connect(&server.socket.path).unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| connect()).collect();
    for client in &mut clients {
        client.call::<Info>(&Request::Info).unwrap();
    }
    let error = connect().reply::<Info>().unwrap_err();
    assert!(error.to_string().contains("3 clients"), "{error}");
    clients.pop();
    while connect().call::<Info>(&Request::Info).is_err() {
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_socket_is_for_its_owner_alone_and_goes_with_the_server() {
    let server = server();
    let path = server.socket.path.clone();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let unpublished = |path: &Path| ControlSocket::bind(path, None).unwrap().0;
    let mut other = unpublished(&path);
    let error = other.publish(false).unwrap_err();
    assert!(error.to_string().contains("another server"), "{error}");
    let at = other.at.clone();
    drop(other);
    assert!(!at.exists() && path.exists());
    let error = owner("nobody-of-this-name").unwrap_err();
    assert!(
        error.to_string().contains("nobody-of-this-name") && error.exit_code() == 2,
        "{error}"
    );
    // What is no socket is not replaced.
    let file = server.directory.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert!(unpublished(&file).publish(true).is_err());
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    // A start that was killed does not stand in the way of another one of its number.
    std::mem::forget(unpublished(&path));
    drop(unpublished(&path));
    // One that takes over has the path, and keeps it when the server before ends.
    let mut taken = unpublished(&path);
    taken.publish(true).unwrap();
    drop(server.socket);
    assert!(path.exists());
    // Nobody listens there: it was left by a server that was killed.
    let mut next = ControlSocket::bind(&path, None).unwrap().0;
    next.publish(false).unwrap();
    drop(taken);
    assert!(path.exists());
    drop(next);
    assert!(!path.exists());
}
