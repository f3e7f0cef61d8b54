//! The client against servers as they are found.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tidegate_args::UsageError;
use tidegate_args::request::Request;

use super::{errors, plan, run, say_nothing};
use crate::body::{Body, Verify};
use crate::kernel::KernelClient;
use crate::progress::Progress;
use crate::thread_per_connection::serve_on_loopback;
use crate::{Client, Close, Direction, HttpOptions, Measured, Plan, Workload};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const LAST: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
const DOWN: Workload = Workload::Throughput {
    direction: Direction::Down,
};

/// All workloads with requests, each in one of its forms.
const WORKLOADS: [Workload; 6] = [
    Workload::Cps { close: Close::Client },
    Workload::Cps { close: Close::Server },
    Workload::Rps { pipeline: 1 },
    Workload::Rps { pipeline: 7 },
    Workload::Latency { rate: 200 },
    DOWN,
];

/// The requests without a body that come on a connection.
struct Requests {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Requests {
    fn of(stream: TcpStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
        }
    }

    fn answer(&mut self, response: &[u8]) -> bool {
        self.stream.write_all(response).is_ok()
    }

    /// Ends the connection as servers do that know of pipelining: unread requests would make an RST of the FIN, and
    /// that can overtake responses (RFC 9112, section 9.6).
    fn end(&mut self) {
        if self.stream.shutdown(Shutdown::Write).is_ok() {
            while matches!(self.stream.read(&mut [0; 4096]), Ok(1..)) {}
        }
    }
}

impl Iterator for Requests {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(end) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let request = self.received.drain(..end + 4).collect();
                return String::from_utf8(request).ok();
            }
            match self.stream.read(&mut buffer) {
                Ok(count) if count > 0 => self.received.extend_from_slice(&buffer[..count]),
                _ => return None,
            }
        }
    }
}

/// Serves what `response` says for request number n of a connection, from 0 on. Where that says `Connection: close`, or
/// the request did, or it is `None`, the connection ends.
fn serve(response: impl Fn(usize) -> Option<Vec<u8>> + Clone + Send + 'static) -> SocketAddr {
    serve_on_loopback(move |stream| {
        let mut requests = Requests::of(stream);
        let mut number = 0;
        while let Some(request) = requests.next()
            && let Some(response) = response(number)
        {
            let says_close = |text: &str| text.contains("Connection: close");
            let closes = says_close(&request) || says_close(&String::from_utf8_lossy(&response));
            if !requests.answer(&response) {
                return;
            }
            if closes {
                return requests.end();
            }
            number += 1;
        }
    })
}

fn with_options(address: SocketAddr, workload: Workload, http: HttpOptions) -> Plan {
    Plan {
        http,
        ..plan(address, workload)
    }
}

#[track_caller]
fn assert_all(measured: &Measured, class: &str) {
    assert_eq!(measured.errors.total(), 0, "{:?}", measured.errors);
    assert!(measured.operations > 0);
    for (name, count) in measured.statuses.iter() {
        assert_eq!(count > 0, name == class, "{count} {name}");
    }
}

#[test]
fn chunks_are_read() {
    let body = "3;ext=\"1\"\r\nhel\r\n2\r\nlo\r\n0\r\nExpires: 0\r\n\r\n";
    let response = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let address = serve(move |_| Some(response.clone().into_bytes()));
    for workload in WORKLOADS {
        for verify in [Verify::Length, Verify::Equal(Body::of(b"hello"))] {
            let measured = run(&Plan {
                verify,
                ..plan(address, workload)
            });
            assert_all(&measured, "2xx");
            if workload == DOWN {
                // Without what describes the chunks. The first and the last may be measured in part.
                assert!(measured.operations <= 5 * (measured.statuses.total() + 3));
            }
        }
    }
}

#[test]
fn redirects_are_reported_and_not_followed() {
    let address = serve(|number| {
        let text = format!("HTTP/1.1 302 Found\r\nLocation: http://a.example/{number}\r\nContent-Length: 3\r\n\r\nbye");
        Some(text.into_bytes())
    });
    for workload in WORKLOADS {
        let measured = if workload == DOWN {
            continue;
        } else {
            run(&plan(address, workload))
        };
        assert_all(&measured, "3xx");
        assert_eq!(
            measured.first_location.as_deref(),
            Some("http://a.example/0"),
            "{workload:?}"
        );
        assert!(!measured.latency.is_empty());
    }
    let measured = run(&Plan {
        verify: Verify::Alike,
        ..plan(address, Workload::Rps { pipeline: 1 })
    });
    assert_eq!((errors(&measured), measured.operations), (vec!["status"], 0));
}

#[test]
fn what_a_server_refuses_is_an_error_and_the_connection_goes_on() {
    let address = serve(|number| {
        let response: &[u8] = match number % 4 {
            0 => b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            1 => b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
            2 => b"HTTP/1.1 204 No Content\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        };
        Some(response.to_owned())
    });
    for workload in [Workload::Rps { pipeline: 1 }, Workload::Rps { pipeline: 7 }] {
        let measured = run(&plan(address, workload));
        let counts: Vec<u64> = measured.statuses.iter().map(|(_, count)| count).collect();
        assert!(counts[0] > 0 && counts[2] > 0 && counts[3] > 0, "{counts:?}");
        assert_eq!(measured.operations, counts[0]);
        assert_eq!(measured.latency.len(), counts[0]);
        let found: Vec<_> = measured.errors.iter().collect();
        assert_eq!(found, [("status", counts[2] + counts[3])]);
        assert!(measured.errors.first().unwrap().starts_with("the status is "));
        assert!(measured.connect.len() <= 3, "no connection is made anew");
    }
}

#[test]
fn interim_responses_are_skipped() {
    let response = [
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
        OK,
    ]
    .concat();
    let address = serve(move |_| Some(response.clone()));
    for workload in WORKLOADS {
        assert_all(&run(&plan(address, workload)), "2xx");
    }
}

#[test]
fn heads_may_be_large_up_to_the_limit() {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n",
        "X-Padding: 1234567\r\n".repeat(200)
    );
    let length = head.len();
    let address = serve(move |_| Some(head.clone().into_bytes()));
    for (max_head, right) in [
        (HttpOptions::default().max_head, true),
        (length, true),
        (length - 1, false),
    ] {
        let http = HttpOptions {
            max_head,
            ..HttpOptions::default()
        };
        let measured = run(&with_options(address, Workload::Rps { pipeline: 1 }, http));
        if right {
            assert_all(&measured, "2xx");
        } else {
            assert_eq!((errors(&measured), measured.operations), (vec!["malformed"], 0));
            let first = measured.errors.first().unwrap();
            assert!(first.contains(&format!("more than {max_head} bytes")), "{first}");
        }
    }
}

#[test]
fn a_server_that_closes_early_is_told_where() {
    for (response, place) in [
        (&b""[..], "before the response began"),
        (&OK[..20], "after 20 bytes of the head"),
        (&OK[..OK.len() - 2], "2 bytes before the end of a body"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "before its last chunk",
        ),
    ] {
        let address = serve_on_loopback(move |stream| {
            let mut requests = Requests::of(stream);
            if requests.next().is_some() && requests.answer(OK) && requests.next().is_some() {
                // An error shows in what the client counts.
                requests.answer(response);
            }
        });
        for workload in [Workload::Rps { pipeline: 1 }, Workload::Latency { rate: 200 }, DOWN] {
            let measured = run(&plan(address, workload));
            // What is due at the end of an open loop may find no connection.
            assert_eq!(errors(&measured).first(), Some(&"closed_early"), "{workload:?}");
            let first = measured.errors.first().unwrap();
            assert!(first.contains(place), "{workload:?}: {first}");
            assert!(measured.operations > 0 && measured.announced_ends == 0);
        }
    }
}

/// The error of a run of two seconds with a timeout of 0.4 s against `address`.
fn timeout_error(address: SocketAddr, workload: Workload) -> String {
    let http = HttpOptions {
        timeout: Duration::from_millis(400),
        ..HttpOptions::default()
    };
    let measured = run(&Plan {
        duration: Duration::from_millis(2_000),
        ..with_options(address, workload, http)
    });
    // At the end some have waited for less.
    let kinds = errors(&measured);
    assert!(
        matches!(kinds[..], ["timed_out"] | ["timed_out", "unfinished"]),
        "{workload:?}: {kinds:?}"
    );
    measured.errors.first().unwrap().to_owned()
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let address = serve_on_loopback(say_nothing);
    for workload in WORKLOADS {
        let first = timeout_error(address, workload);
        assert!(first.contains("within 0.4 s, before the response began"), "{first}");
    }
    let stuck = serve_on_loopback(|mut stream| {
        if stream.write_all(&OK[..OK.len() - 1]).is_ok() {
            say_nothing(stream);
        }
    });
    for workload in [Workload::Cps { close: Close::Rst }, Workload::Rps { pipeline: 1 }, DOWN] {
        let first = timeout_error(stuck, workload);
        assert!(first.contains("1 bytes before the end of a body"), "{first}");
    }
}

#[test]
fn a_server_that_does_not_close_as_it_was_asked_is_given_up() {
    let address = serve_on_loopback(|mut stream| {
        if stream.write_all(OK).is_ok() {
            say_nothing(stream);
        }
    });
    let first = timeout_error(address, Workload::Cps { close: Close::Server });
    assert!(first.contains("no end of the connection"), "{first}");
}

/// Runs until there was a connection whose end was announced, for five seconds at most.
fn run_until_announced(plan: &Plan) -> Measured {
    let mut rounds = 0;
    loop {
        let measured = run(plan);
        rounds += 1;
        if measured.announced_ends > 0 || rounds == 10 {
            return measured;
        }
    }
}

#[test]
fn connections_that_end_after_a_thousand_requests_are_replaced() {
    let address = serve(|number| Some(if number == 999 { LAST } else { OK }.to_owned()));
    for pipeline in [1, 7] {
        let measured = run_until_announced(&Plan {
            duration: Duration::from_millis(500),
            ..plan(address, Workload::Rps { pipeline })
        });
        assert_all(&measured, "2xx");
        assert!(measured.announced_ends > 0);
        assert!(measured.close.len() <= measured.announced_ends);
    }
}

#[test]
fn a_close_without_announcement_is_no_error_while_nothing_is_asked() {
    let address = serve_on_loopback(|stream| {
        let mut requests = Requests::of(stream);
        if requests.next().is_some() {
            requests.answer(OK);
        }
    });
    // The connections wait for what is due, and meanwhile are closed.
    let measured = run(&plan(address, Workload::Latency { rate: 50 }));
    assert_all(&measured, "2xx");
    assert_eq!((measured.announced_ends, measured.close.len()), (0, 0));
}

/// A server that tells of each connection that was closed: its requests.
fn observed(response: &'static [u8]) -> (SocketAddr, Receiver<Vec<String>>) {
    let (sender, connections) = channel();
    let address = serve_on_loopback(move |stream| {
        let mut requests = Requests::of(stream);
        let mut all = Vec::new();
        while let Some(request) = requests.next() {
            let closes = request.contains("Connection: close");
            all.push(request);
            if !requests.answer(response) || closes {
                break;
            }
        }
        // Nobody listens any more when the test is over.
        let _ = sender.send(all);
    });
    (address, connections)
}

#[test]
fn connections_have_as_many_requests_as_was_asked_for() {
    let cps = [Close::Client, Close::Server, Close::Rst].map(|close| Workload::Cps { close });
    let others = [
        Workload::Rps { pipeline: 1 },
        Workload::Rps { pipeline: 3 },
        Workload::Latency { rate: 500 },
    ];
    for workload in cps.into_iter().chain(others) {
        let (address, connections) = observed(OK);
        let http = HttpOptions {
            requests_per_connection: Some(5),
            ..HttpOptions::default()
        };
        let measured = run(&with_options(address, workload, http));
        assert_all(&measured, "2xx");
        let lengths: Vec<Vec<String>> = connections.try_iter().filter(|all| all.len() == 5).collect();
        assert!(!lengths.is_empty(), "{workload:?}");
        for all in &lengths {
            let closes: Vec<bool> = all
                .iter()
                .map(|request| request.contains("Connection: close"))
                .collect();
            let is_asked = workload == Workload::Cps { close: Close::Server };
            assert_eq!(closes, [false, false, false, false, is_asked], "{workload:?}");
        }
        match workload {
            Workload::Cps { .. } => assert!(measured.statuses.total() >= 5 * measured.operations.saturating_sub(3)),
            _ => {
                // What is due at the end is answered after it.
                assert!(measured.operations <= measured.statuses.total());
                assert_eq!(measured.latency.len(), measured.statuses.total());
                assert!(measured.time_wait.is_some());
            }
        }
    }
    let (address, connections) = observed(OK);
    let http = HttpOptions {
        requests_per_connection: Some(5),
        ..HttpOptions::default()
    };
    run(&with_options(address, Workload::Rps { pipeline: 3 }, http));
    let longest = connections.try_iter().map(|all| all.len()).max();
    assert_eq!(longest, Some(5), "never more");
}

#[test]
fn connections_of_cps_may_end_before_they_have_all_their_requests() {
    let address = serve(|number| Some(if number == 2 { LAST } else { OK }.to_owned()));
    for close in [Close::Client, Close::Server, Close::Rst] {
        let http = HttpOptions {
            requests_per_connection: Some(1_000),
            ..HttpOptions::default()
        };
        let measured = run(&with_options(address, Workload::Cps { close }, http));
        assert_all(&measured, "2xx");
        assert!(measured.announced_ends > 0, "{close:?}");
    }
}

#[test]
fn requests_are_those_that_were_asked_for() {
    let request = |method: Option<&str>, fields: &[&str], body: Option<&str>| Request {
        method: method.map(|text| text.parse().unwrap()),
        fields: fields.iter().map(|text| text.parse().unwrap()).collect(),
        body: body.map(|text| text.parse().unwrap()),
    };
    for (request, response, begin, rest) in [
        (
            request(Some("HEAD"), &["Host: a.example", "X: y"], None),
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"[..],
            "HEAD / HTTP/1.1\r\nHost: a.example\r\nUser-Agent: tidegate-bench\r\nX: y\r\n\r\n",
            "",
        ),
        (
            request(None, &["Host: b"], Some("a=b\r\n\r\n")),
            OK,
            "POST / HTTP/1.1\r\nHost: b\r\nUser-Agent: tidegate-bench\r\nContent-Length: 7\r\n\r\n",
            // The server takes the body for the end of another request.
            "a=b\r\n\r\n",
        ),
    ] {
        let (address, connections) = observed(response);
        let http = HttpOptions {
            request,
            ..HttpOptions::default()
        };
        let measured = run(&Plan {
            verify: Verify::Any,
            ..with_options(address, Workload::Cps { close: Close::Client }, http)
        });
        // The server answers the body as well.
        if rest.is_empty() {
            assert_all(&measured, "2xx");
        }
        // The client may go when the server has only begun to read.
        let seen: BTreeSet<String> = connections.iter().take(3).flatten().collect();
        let expected = [begin, rest].into_iter().filter(|text| !text.is_empty());
        assert_eq!(seen, expected.map(str::to_owned).collect());
    }
}

#[test]
fn bodies_of_any_length_are_right_if_nothing_else_was_asked_for() {
    let address = serve(|number| {
        let body = "x".repeat(number % 10);
        Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
    });
    for (verify, expected) in [(Verify::Any, &[][..]), (Verify::Length, &["length"])] {
        let measured = run(&Plan {
            verify,
            ..plan(address, Workload::Rps { pipeline: 2 })
        });
        assert_eq!(errors(&measured), expected);
    }
}

#[test]
fn the_first_byte_comes_before_the_last() {
    let address = serve_on_loopback(|stream| {
        let mut requests = Requests::of(stream);
        while requests.next().is_some() && requests.answer(&OK[..30]) {
            std::thread::sleep(Duration::from_millis(200));
            if !requests.answer(&OK[30..]) {
                return;
            }
        }
    });
    for workload in [Workload::Cps { close: Close::Client }, Workload::Rps { pipeline: 1 }] {
        let measured = run(&Plan {
            duration: Duration::from_millis(500),
            ..plan(address, workload)
        });
        assert_all(&measured, "2xx");
        let (first, last) = (
            measured.first_byte.quantiles().unwrap(),
            measured.latency.quantiles().unwrap(),
        );
        assert_eq!(first.count, last.count);
        assert!(first.p50 < last.p50, "{first:?} {last:?}");
    }
}

#[test]
fn a_response_in_one_piece_has_one_time() {
    let measured = run(&plan(serve(|_| Some(OK.to_owned())), Workload::Rps { pipeline: 1 }));
    assert_eq!(measured.first_byte.histogram(), measured.latency.histogram());
}

#[test]
fn the_time_to_close_is_known_where_the_server_closes() {
    let address = serve(|_| Some(OK.to_owned()));
    for (close, is_known) in [(Close::Server, true), (Close::Client, false)] {
        let measured = run(&plan(address, Workload::Cps { close }));
        assert_eq!(measured.close.len(), if is_known { measured.operations } else { 0 });
    }
}

#[test]
fn requests_that_cannot_be_are_usage_errors() {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let with = |workload, change: fn(&mut HttpOptions)| {
        let mut http = HttpOptions::default();
        change(&mut http);
        with_options(address, workload, http)
    };
    let body = |http: &mut HttpOptions| http.request.body = "x".repeat(10_000).parse().ok();
    assert!(with(Workload::Rps { pipeline: 16 }, body).check().is_ok());
    for plan in [
        with(Workload::Rps { pipeline: 1 }, |http| {
            http.requests_per_connection = Some(0)
        }),
        with(Workload::Rps { pipeline: 64 }, body),
        with(Workload::Cps { close: Close::Server }, |http| {
            http.request.fields = vec!["Connection: keep-alive".parse().unwrap()];
        }),
    ] {
        let error = KernelClient::new().run(&plan, &Progress::hidden()).unwrap_err();
        assert!(error.is::<UsageError>(), "{error:#}");
    }
}

/// nginx, which ends with this.
struct Nginx(Child, PathBuf);

impl Drop for Nginx {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(&self.1);
    }
}

/// Starts nginx with its own defaults, if it is installed.
fn nginx(address: SocketAddr) -> Option<Nginx> {
    let work = std::env::temp_dir().join(format!("tidegate-load-nginx-{}", std::process::id()));
    std::fs::create_dir_all(work.join("logs")).unwrap();
    let configuration = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr;
         events {{}}
         http {{
             access_log off;
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;
             server {{ listen {address}; location / {{ return 200 hello; }} location /r {{ return 302 /x; }} }}
         }}"
    );
    let file = work.join("nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    let mut found = ["nginx", "/usr/sbin/nginx"].iter().filter_map(|program| {
        let mut command = Command::new(program);
        command.arg("-p").arg(&work).arg("-c").arg(&file).stderr(Stdio::null());
        command.spawn().ok()
    });
    let Some(child) = found.next() else {
        std::fs::remove_dir_all(&work).unwrap();
        return None;
    };
    Some(Nginx(child, work))
}

#[test]
fn nginx_is_served_with_its_default_limit_of_requests() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let Some(mut nginx) = nginx(address) else {
        eprintln!("SKIPPED: nginx is not installed");
        return;
    };
    while TcpStream::connect(address).is_err() {
        assert_eq!(nginx.0.try_wait().unwrap(), None, "nginx has ended");
        std::thread::sleep(Duration::from_millis(10));
    }
    let with_requests = |workload| Plan {
        duration: Duration::from_millis(500),
        verify: Verify::Equal(Body::of(b"hello")),
        ..plan(address, workload)
    };
    for workload in [
        Workload::Rps { pipeline: 1 },
        Workload::Rps { pipeline: 7 },
        Workload::Latency { rate: 10_000 },
    ] {
        let measured = run_until_announced(&with_requests(workload));
        assert_all(&measured, "2xx");
        assert!(measured.announced_ends > 0, "{workload:?}");
    }
    for close in [Close::Client, Close::Server, Close::Rst] {
        assert_all(&run(&with_requests(Workload::Cps { close })), "2xx");
    }
    let mut plan = plan(address, Workload::Rps { pipeline: 1 });
    plan.url = format!("http://{address}/r").parse().unwrap();
    let measured = run(&plan);
    assert_all(&measured, "3xx");
    assert_eq!(
        measured.first_location,
        Some(format!("http://127.0.0.1:{}/x", address.port()))
    );
}
