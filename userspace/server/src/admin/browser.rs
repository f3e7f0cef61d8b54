//! The dashboard in headless Chromium, driven by chromedriver (W3C WebDriver): `scripts/test-dashboard.sh`.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::tests::{listen, snapshot};
use super::*;

/// The time a page has to change.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Faults of the page: parts that leave it or cannot be seen, and values that are missing.
const PROBLEMS: &str = r#"
const found = [];
const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth > width) found.push(`${document.documentElement.scrollWidth} pixels wide`);
if (!matchMedia(`(prefers-color-scheme: ${arguments[0]})`).matches) found.push(`not ${arguments[0]}`);
if (/NaN|undefined|null|\[object/.test(document.querySelector("main").innerText)) found.push("a value is missing");
for (const element of document.querySelectorAll("h1, h2, p, strong, li, td, th, span")) {
  if (element.closest("[hidden], noscript") || !element.innerText.trim()) continue;
  const { left, right } = element.getBoundingClientRect();
  const quote = `"${element.innerText.slice(0, 40)}"`;
  if (!element.closest(".wide") && (left < -1 || right > width + 1)) found.push(`${quote} leaves the page`);
  const card = element.closest(".card, .alarm") ?? document.body;
  if (getComputedStyle(element).color === getComputedStyle(card).backgroundColor) found.push(`${quote} cannot be seen`);
}
for (const cell of document.querySelectorAll(".wide th, .wide td")) {
  if (cell.getBoundingClientRect().height > 60) found.push(`"${cell.innerText}" is broken into lines`);
}
for (const svg of document.querySelectorAll("svg")) {
  if (!svg.querySelector("polyline")) found.push(`no line in ${svg.getAttribute("aria-label")}`);
}
return found;
"#;

/// A browser with one window.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    fn start(width: u32, height: u32, scheme: &str) -> Self {
        let mut driver = Command::new(env::var("CHROMEDRIVER").unwrap_or_else(|_| "chromedriver".to_owned()))
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver (Debian's package chromium-driver)");
        let output = BufReader::new(driver.stdout.take().expect("its output"));
        let port = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                line.split("started successfully on port ")
                    .nth(1)?
                    .trim_end_matches('.')
                    .parse()
                    .ok()
            })
            .expect("the port of chromedriver");
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
        };
        let dark = u32::from(scheme != "dark");
        let arguments = [
            "--headless=new".to_owned(),
            // Root may have none; the page is our own.
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--hide-scrollbars".to_owned(),
            // Smaller pictures.
            "--disable-lcd-text".to_owned(),
            format!("--blink-settings=preferredColorScheme={dark}"),
        ];
        let capabilities = json!({ "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        }});
        let session = browser.command("POST", "", &json!({ "capabilities": capabilities }));
        browser.session = format!("/{}", session["sessionId"].as_str().expect("a session"));
        // Of the page, which a headless window cannot be as narrow as by its own size.
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        let call = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics });
        browser.command("POST", "/goog/cdp/execute", &call);
        browser
    }

    /// A command of WebDriver, and its value.
    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).expect("chromedriver");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        let body = if method == "POST" {
            body.to_string()
        } else {
            String::new()
        };
        write!(
            stream,
            "{method} /session{}{path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.session,
            self.port,
            body.len()
        )
        .expect("a request");
        let mut head = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            head.read_line(&mut line).expect("a response");
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut answer = vec![0; length];
        head.read_exact(&mut answer).expect("the response");
        let mut answer: Value = serde_json::from_slice(&answer).expect("JSON");
        let value = answer["value"].take();
        assert!(value["error"].is_null(), "{path}: {value}");
        value
    }

    fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    fn run(&self, script: &str, arguments: Value) -> Value {
        self.command("POST", "/execute/sync", &json!({ "script": script, "args": arguments }))
    }

    /// Waits until a script returns true.
    #[track_caller]
    fn wait_for(&self, script: &str) {
        let began = Instant::now();
        while self.run(script, json!([])) != true {
            assert!(began.elapsed() < TIMEOUT, "{script} did not become true");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Messages in the console since the last look.
    fn console(&self) -> Vec<String> {
        let entries = self.command("POST", "/se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().expect("entries");
        entries.iter().map(|entry| entry["message"].to_string()).collect()
    }

    fn screenshot(&self) -> Vec<u8> {
        let image = self.command("GET", "/screenshot", &Value::Null);
        STANDARD.decode(image.as_str().expect("an image")).expect("base64")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.command("DELETE", "", &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// A server under a load that comes and goes, and in a flood in the end.
fn busy() -> impl Fn() -> Result<Snapshot, String> + Send + Sync {
    let started = Instant::now();
    move || {
        let at = Instant::now();
        let seconds = at.duration_since(started).as_secs_f64();
        // What has come by now, at `rate` a second and a half more or less in waves.
        let grown = |rate: f64| (rate * (seconds + 0.5 * (1.0 - (seconds / 2.0).cos()))) as u64;
        let mut snapshot = snapshot(1);
        snapshot.at = at;
        snapshot.info.started = started - Duration::from_secs(93_784);
        let mut services = ServiceCounts::default();
        services
            .counters
            .http
            .add(tidegate_apps::http::Counter::Requests, grown(84_000.0));
        for (queue, shard) in (0_u32..).zip(&mut snapshot.report.shards) {
            let busy = 1.0 + f64::from(queue) / 2.0;
            shard.port.rx_frames = grown(90_000.0 * busy);
            shard.port.rx_bytes = grown(11_000_000.0 * busy);
            shard.port.tx_frames = grown(95_000.0 * busy);
            shard.port.tx_bytes = grown(76_000_000.0 * busy);
            shard.port.turns = grown(400_000.0);
            shard.port.turns_worked = grown(90_000.0 * busy);
            shard.cpu_time = Duration::from_secs_f64(seconds * 0.31 * busy);
            shard.population.connections = 20_000 + (4000.0 * (seconds / 3.0).sin()) as u32;
            shard.population.half_open = 40;
            shard.population.time_wait = 3100;
            for (counter, rate) in [
                (tidegate_tcp::counters::Counter::PassiveOpens, 900.0),
                (tidegate_tcp::counters::Counter::SynsIn, 930.0),
                (tidegate_tcp::counters::Counter::FramesOut, 95_000.0),
                (tidegate_tcp::counters::Counter::FastRetransmits, 120.0),
                (tidegate_tcp::counters::Counter::CookieConnections, 80.0),
                (tidegate_tcp::counters::Counter::DropOutOfWindow, 21.0),
            ] {
                shard.tcp.add(counter, grown(rate));
            }
            for step in 0..grown(400.0) {
                shard.latencies.rtt.record(180 + step * 37 % 700);
                shard.latencies.accept.record(300 + 3 * (step * 37 % 500));
                services.response_time.record(20 + step * 37 % 90);
            }
        }
        snapshot.report.xdp[1].0[tidegate_abi::XdpCounter::TxSynCookie as usize] = grown(310_000.0);
        snapshot.services = vec![Arc::default(), Arc::new(services)];
        Ok(snapshot)
    }
}

/// The window's width and height, colours, and the file in docs/ that a picture goes to.
const VIEWS: [(u32, u32, &str, &str); 3] = [
    (1120, 1060, "dark", "dashboard-dark.png"),
    (1120, 1060, "light", "dashboard-light.png"),
    (390, 1200, "light", "dashboard-narrow.png"),
];

#[test]
#[ignore = "needs chromium and chromedriver: make test-dashboard"]
fn the_dashboard_loads_and_goes_on_without_errors_wide_and_narrow_light_and_dark() {
    let admin = listen(Limits::default(), busy());
    for (width, height, scheme, picture) in VIEWS {
        let browser = Browser::start(width, height, scheme);
        browser.open(&format!("http://{}/", admin.address));
        browser.wait_for("return history.length >= 2;");
        let shown = "return document.querySelector('#tiles strong').textContent;";
        let first = browser.run(shown, json!([]));
        browser.wait_for(&format!(
            "return document.querySelector('#tiles strong').textContent !== {first};"
        ));
        browser.wait_for("return document.getElementById('flood').checkVisibility();");
        browser.wait_for("return document.getElementById('state').textContent === 'serving';");
        browser.wait_for("return history.length >= 12;");
        let problems = browser.run(PROBLEMS, json!([scheme]));
        assert_eq!(problems, json!([]), "{picture}");
        assert_eq!(browser.console(), Vec::<String>::new(), "{picture}");
        if let Some(directory) = env::var_os("TIDEGATE_DASHBOARD_PICTURES") {
            fs::write(Path::new(&directory).join(picture), browser.screenshot()).expect("the picture");
        }
    }
}

#[test]
#[ignore = "needs chromium and chromedriver: make test-dashboard"]
fn the_dashboard_says_when_nobody_answers_and_goes_on_when_somebody_does() {
    let fails = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&fails);
    let busy = busy();
    let admin = listen(Limits::default(), move || {
        if failing.load(Ordering::Relaxed) {
            return Err("the shard of queue 1 has failed".to_owned());
        }
        busy()
    });
    let browser = Browser::start(1280, 1000, "light");
    browser.open(&format!("http://{}/", admin.address));
    browser.wait_for("return document.getElementById('trouble').innerText.includes('queue 1 has failed');");
    fails.store(false, Ordering::Relaxed);
    browser.wait_for("return document.getElementById('trouble').hidden && history.length >= 1;");
}
