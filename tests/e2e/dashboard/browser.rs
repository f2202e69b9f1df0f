//! The pages in a browser: no error on the console, nothing from elsewhere, what is new without a reload, contrast, and room on
//! a phone.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use rustix::process::Signal;
use selvedge_tests::{Mesh, SOON, needs::Need, poll};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use super::{SERVICE, all_is_told, failures, mesh, send};

/// Finds text whose contrast with what is behind it is below 4.5 (WCAG 2.2, 1.4.3), or 3 if it is large.
const CONTRAST: &str = r#"(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const over = (top, under) => [0, 1, 2].map((at) => (top[at] * top[3] + under[at] * (255 - top[3])) / 255).concat(255);
  const light = (color) => {
    const part = color.slice(0, 3).map((one) => one / 255).map((one) => one <= .04045 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4);
    return .2126 * part[0] + .7152 * part[1] + .0722 * part[2];
  };
  const behind = (element) => {
    const chain = [];
    for (let one = element; one; one = one.parentElement) chain.push(rgba(getComputedStyle(one).backgroundColor));
    return chain.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 255]);
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, element = node.parentElement;
    if (!node.data.trim() || !element || element.closest(".hide, title, desc, script, noscript")) continue;
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    if (style.visibility === "hidden" || style.display === "none" || box.width === 0) continue;
    const isDrawn = element.closest("svg");
    const under = behind(isDrawn ? isDrawn.parentElement : element);
    const color = over(rgba(isDrawn ? style.fill : style.color), under);
    const [a, b] = [light(color), light(under)].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    const isLarge = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) poor.push(`${ratio.toFixed(2)} ${element.tagName}.${element.getAttribute("class")}: ${node.data.trim().slice(0, 40)}`);
  }
  return poor;
})()"#;

/// What a page must have for those who do not see it: each list is of what lacks it.
const STRUCTURE: &str = r#"(() => ({
  heads: document.querySelectorAll("h1").length,
  landmarks: ["header", "nav", "main", "footer"].filter((name) => !document.querySelector(name)),
  captions: [...document.querySelectorAll("table")].filter((one) => !one.caption).length,
  scopes: [...document.querySelectorAll("th")].filter((one) => !one.scope).length,
  drawings: [...document.querySelectorAll("svg")].filter((one) => {
    const hidden = one.getAttribute("aria-hidden") === "true";
    return !hidden && !one.getAttribute("aria-label") && !one.getAttribute("aria-labelledby");
  }).length,
  labels: [...document.querySelectorAll("[aria-labelledby]")].flatMap((one) => one.getAttribute("aria-labelledby").split(" "))
    .filter((id) => !document.getElementById(id)),
  twice: [...document.querySelectorAll("[id]")].map((one) => one.id).filter((id, at, all) => all.indexOf(id) !== at),
  buttons: [...document.querySelectorAll("button, a, select")].filter((one) => !one.textContent.trim() && !one.ariaLabel).length,
}))()"#;

/// A browser without a window, and one page in it.
struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
    socket: WebSocketStream<TcpStream>,
    session: String,
    next: u64,
    /// What has happened on the page.
    events: Vec<Value>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Browser {
    /// `None`: this machine has none.
    async fn open() -> Option<Self> {
        let program = Need::Chromium.program()?;
        let profile = tempfile::tempdir().expect("a directory");
        let mut child = Command::new(program)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg("--remote-debugging-port=0")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let told = profile.path().join("DevToolsActivePort");
        let (port, path) = poll(SOON + SOON, "the browser listens", async || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the browser has ended: {status}");
            }
            let told = std::fs::read_to_string(&told).map_err(|error| error.to_string())?;
            let (port, path) = told.trim().split_once('\n').ok_or("half a file")?;
            Ok::<_, String>((port.parse::<u16>().map_err(|error| error.to_string())?, path.to_owned()))
        })
        .await;
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("its port");
        let (socket, _) =
            client_async(format!("ws://127.0.0.1:{port}{path}"), stream).await.expect("a WebSocket");
        let mut browser =
            Self { child, _profile: profile, socket, session: String::new(), next: 0, events: Vec::new() };
        let page = browser.ask("Target.createTarget", json!({"url": "about:blank"})).await;
        let attached = browser
            .ask("Target.attachToTarget", json!({"targetId": page["targetId"], "flatten": true}))
            .await;
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.ask(&format!("{domain}.enable"), json!({})).await;
        }
        Some(browser)
    }

    /// What the browser answers.
    async fn ask(&mut self, method: &str, parameters: Value) -> Value {
        self.next += 1;
        let mut question = json!({"id": self.next, "method": method, "params": parameters});
        if !self.session.is_empty() {
            question["sessionId"] = self.session.as_str().into();
        }
        self.socket.send(Message::text(question.to_string())).await.expect("it is sent");
        let deadline = Instant::now() + SOON + SOON;
        loop {
            let message = timeout_at(deadline, self.socket.next()).await;
            let message = message
                .unwrap_or_else(|_| panic!("no answer to {method}"))
                .expect("open")
                .expect("a message");
            let Ok(text) = message.into_text() else { continue };
            let Ok(said) = serde_json::from_str::<Value>(&text) else { continue };
            if said["id"] == self.next {
                assert!(said.get("error").is_none(), "{method}: {said}");
                return said["result"].clone();
            }
            self.events.push(said);
        }
    }

    /// What `script` comes to on the page.
    async fn eval(&mut self, script: &str) -> Value {
        let asked = json!({"expression": script, "returnByValue": true, "awaitPromise": true});
        let answer = self.ask("Runtime.evaluate", asked).await;
        assert!(answer.get("exceptionDetails").is_none(), "{script}: {answer}");
        answer["result"]["value"].clone()
    }

    async fn go(&mut self, url: &str) {
        self.ask("Page.navigate", json!({"url": url})).await;
        let here = format!("document.readyState === 'complete' && location.href === {}", json!(url));
        let deadline = Instant::now() + SOON;
        while self.eval(&here).await != true {
            assert!(Instant::now() < deadline, "{url} is not loaded: {}", self.eval("location.href").await);
            tokio::task::yield_now().await;
        }
    }

    async fn look_as(&mut self, scheme: &str, width: u32) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.ask("Emulation.setEmulatedMedia", json!({"features": features})).await;
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500});
        self.ask("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// What has gone wrong on the pages, and what they have asked of others than `origin`.
    fn complaints(&self, origin: &str) -> Vec<String> {
        let complaint = |event: &Value| {
            let parameters = &event["params"];
            match event["method"].as_str()? {
                "Runtime.exceptionThrown" => Some(parameters.to_string()),
                "Runtime.consoleAPICalled" => Some(parameters.to_string()),
                "Log.entryAdded" if parameters["entry"]["level"] != "verbose" => Some(parameters.to_string()),
                "Network.requestWillBeSent" => {
                    let url = parameters["request"]["url"].as_str()?;
                    (!url.starts_with(origin) && !url.starts_with("about:")).then(|| url.to_owned())
                }
                _ => None,
            }
        };
        self.events.iter().filter_map(complaint).collect()
    }
}

fn names() -> Vec<String> {
    let pages = ["overview", "topology", "policies", "certificates", "problems", "proxies"];
    pages.map(str::to_owned).into_iter().chain([format!("service/{SERVICE}")]).collect()
}

/// Some requests of each kind, and what they came to is known.
async fn told(mesh: &Mesh) -> String {
    send(mesh, 200, 12).await;
    send(mesh, 500, 4).await;
    all_is_told(mesh).await;
    format!("http://{}/", mesh.control_plane_admin_address())
}

#[tokio::test]
async fn every_page_can_be_read_by_everybody_and_asks_nobody_else() {
    let Some(mut browser) = Browser::open().await else { return };
    let mesh = mesh().await;
    let origin = told(&mesh).await;

    for name in names() {
        for (scheme, width) in [("light", 1280), ("dark", 390)] {
            browser.look_as(scheme, width).await;
            browser.go(&format!("{origin}dashboard/{name}?since=1h")).await;
            let poor = browser.eval(CONTRAST).await;
            assert_eq!(poor, json!([]), "contrast of {name}, {scheme}");
            let wide = browser.eval("document.documentElement.scrollWidth - innerWidth").await;
            assert!(wide.as_i64() <= Some(0), "{name} is {wide} px too wide for {width}");
            let cards = "[...document.querySelectorAll('table.cards')].filter((one) => one.scrollWidth > one.parentElement.clientWidth).length";
            assert_eq!(
                browser.eval(cards).await,
                0,
                "what is read from top to bottom on {name} needs no scrolling aside at {width}"
            );
        }
        let expected = json!({
            "heads": 1, "landmarks": [], "captions": 0, "scopes": 0, "drawings": 0, "labels": [], "twice": [], "buttons": 0
        });
        assert_eq!(browser.eval(STRUCTURE).await, expected, "{name}");
    }
    // The scheme is another one, and not only said to be.
    let paper = "getComputedStyle(document.body).backgroundColor";
    let dark = browser.eval(paper).await;
    browser.look_as("light", 1280).await;
    assert_ne!(browser.eval(paper).await, dark);
    assert_eq!(browser.complaints(&origin), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_new_is_shown_without_a_reload_until_it_is_paused() {
    let Some(mut browser) = Browser::open().await else { return };
    let mesh = mesh().await;
    let origin = told(&mesh).await;
    browser.go(&format!("{origin}dashboard/service/{SERVICE}?since=1h")).await;
    let shows = |browser: Value, words: &str| browser.as_str().is_some_and(|text| text.contains(words));
    // This stays, unless the page is loaded anew.
    browser.eval("window.mark = 1").await;
    until(&mut browser, "document.getElementById('state').textContent", |said| shows(said, "Live")).await;

    // The keyboard is at a table, which scrolls, and stays there.
    browser.eval("document.querySelectorAll('.scroll')[1].focus()").await;
    let words = format!("{} failed of ", failures(&mesh) + 5);
    send(&mesh, 500, 5).await;
    until(&mut browser, "document.getElementById('content').textContent", |said| shows(said, &words)).await;
    assert_eq!(browser.eval("window.mark").await, 1);
    let place = "[...document.querySelectorAll('.scroll')].indexOf(document.activeElement)";
    assert_eq!(browser.eval(place).await, 1);

    browser.eval("document.getElementById('pause').click()").await;
    until(&mut browser, "document.getElementById('state').textContent", |said| shows(said, "Paused")).await;
    assert_eq!(browser.eval("document.getElementById('pause').textContent").await, "Go on");
    browser.eval("document.getElementById('pause').click()").await;
    until(&mut browser, "document.getElementById('state').textContent", |said| shows(said, "Live")).await;
    assert_eq!(browser.complaints(&origin), Vec::<String>::new());
}

#[tokio::test]
async fn a_phone_says_that_figures_are_old_while_nobody_answers_and_is_live_again_by_itself() {
    let Some(mut browser) = Browser::open().await else { return };
    let mut mesh = mesh().await;
    let origin = told(&mesh).await;
    browser.look_as("light", 390).await;
    browser.go(&format!("{origin}dashboard/service/{SERVICE}?since=1h")).await;
    let shows = |browser: Value, words: &str| browser.as_str().is_some_and(|text| text.contains(words));
    until(&mut browser, "document.getElementById('state').textContent", |said| shows(said, "Live")).await;
    browser.eval("window.mark = 1").await;
    let stale = "document.getElementById('stale')";
    assert_eq!(browser.eval(&format!("{stale}.hidden")).await, true);

    mesh.kill_control_plane().await.expect("it dies");
    let seen = format!(
        "(() => {{ const box = {stale}.getBoundingClientRect(); \
         return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight ? {stale}.textContent : ''; }})()"
    );
    until(&mut browser, &seen, |said| shows(said, "Not live since ")).await;
    assert_eq!(browser.eval("document.getElementById('state').textContent").await, "Not live");
    assert_eq!(browser.eval(CONTRAST).await, json!([]));
    browser.eval("scrollTo(0, document.body.scrollHeight / 2)").await;
    until(&mut browser, &seen, |said| shows(said, "Not live since ")).await;

    mesh.start_control_plane().await.expect("it starts");
    until(&mut browser, "document.getElementById('state').textContent", |said| said == "Live").await;
    assert_eq!(browser.eval(&format!("{stale}.hidden")).await, true);
    assert_eq!(browser.eval("window.mark").await, 1, "nobody has loaded it anew");

    // A lost network is no error: nothing comes any more.
    let process = mesh.control_plane_process().expect("it runs");
    process.freeze().await.expect("it stands still");
    until(&mut browser, &seen, |said| shows(said, ": nothing is heard any more")).await;
    process.signal(Signal::CONT).expect("it goes on");
    until(&mut browser, "document.getElementById('state').textContent", |said| said == "Live").await;
    assert_eq!(browser.eval(&format!("{stale}.hidden")).await, true);
}

/// Asks until what `script` comes to is as it is meant.
async fn until(browser: &mut Browser, script: &str, is_meant: impl Fn(Value) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let said = browser.eval(script).await;
        if is_meant(said.clone()) {
            return;
        }
        assert!(Instant::now() < deadline, "{script}: {said}");
        // Answers as soon as the browser has drawn something again.
        browser.eval("new Promise((done) => setTimeout(done, 200))").await;
    }
}
