//! A headless Chromium, driven as a person would use it.

use std::fs;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};
use testbed::place;
use testbed::trial::{self, wait_until};
use tokio::runtime::Runtime;

/// What the driver prints once it listens, before the port's number.
const LISTENS: &str = "started successfully on port ";
/// How long one command may take; the pages come from a machine under emulation.
const COMMAND: Duration = Duration::from_mins(1);

/// Why a page is not as it should be.
pub type Error = Box<dyn std::error::Error>;

/// How a window is to be.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Width and height in CSS pixels.
    pub size: (u32, u32),
    /// Whether pages may run scripts.
    pub script: bool,
    /// Whether the person wants dark pages.
    pub dark: bool,
}

impl Window {
    /// On a desk.
    pub const DESK: Self = Self {
        size: (1280, 1000),
        script: true,
        dark: false,
    };
    /// On a phone.
    pub const PHONE: Self = Self {
        size: (390, 844),
        ..Self::DESK
    };
}

/// A window with a profile of its own. Ends when dropped.
pub struct Browser {
    // Dropped in this order: the client speaks to the driver, the driver uses the profile.
    client: Client,
    runtime: Runtime,
    driver: Child,
    _profile: tempfile::TempDir,
    base: String,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Nothing is to be done about a browser that does not end.
        let _ = self
            .runtime
            .block_on(async { tokio::time::timeout(COMMAND, self.client.clone().close()).await });
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl Browser {
    /// Opens a window for addresses below `base`, such as `http://127.0.0.1:8080`.
    pub fn open(base: &str, window: Window) -> Result<Self, Error> {
        let profile = tempfile::tempdir()?;
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("failed to start chromedriver: {error}"))?;
        let port = port(&mut driver)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let capabilities = capabilities(window, &profile.path().display().to_string());
        let client = runtime.block_on(
            ClientBuilder::new(HttpConnector::new())
                .capabilities(capabilities)
                .connect(&format!("http://127.0.0.1:{port}")),
        )?;
        Ok(Self {
            client,
            runtime,
            driver,
            _profile: profile,
            base: base.to_owned(),
        })
    }

    fn act<T>(
        &self,
        what: &str,
        act: impl Future<Output = Result<T, CmdError>>,
    ) -> Result<T, Error> {
        let done = async { tokio::time::timeout(COMMAND, act).await };
        match self.runtime.block_on(done) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(format!("failed to {what}: {error}").into()),
            Err(_) => Err(format!("failed to {what}: no answer from the browser").into()),
        }
    }

    /// Opens the page with this path.
    pub fn go(&self, path: &str) -> Result<(), Error> {
        let address = format!("{}{path}", self.base);
        self.act(&address, self.client.goto(&address))
    }

    /// Path of the open page, with its query.
    pub fn path(&self) -> Result<String, Error> {
        let url = self.act("read the address", self.client.current_url())?;
        Ok(url.query().map_or_else(
            || url.path().to_owned(),
            |query| format!("{}?{query}", url.path()),
        ))
    }

    /// The text that a person sees.
    pub fn text(&self) -> Result<String, Error> {
        let body = self.act("find the page", self.client.find(Locator::Css("body")))?;
        self.act("read the page", body.text())
    }

    /// Waits until the page shows each of these texts.
    pub fn sees(&self, texts: &[&str]) -> Result<(), trial::Error> {
        wait_until(&format!("{texts:?} on the page"), || {
            let text = self.text().map_err(|error| error.to_string())?;
            if texts.iter().all(|wanted| text.contains(wanted)) {
                return Ok(());
            }
            Err(text)
        })
    }

    /// The same for a page that does not change by itself.
    pub fn reloads_until(&self, texts: &[&str]) -> Result<(), trial::Error> {
        wait_until(&format!("{texts:?} after reloading"), || {
            let text = self.text().map_err(|error| error.to_string())?;
            if texts.iter().all(|wanted| text.contains(wanted)) {
                return Ok(());
            }
            self.act("reload", self.client.refresh())
                .map_err(|error| error.to_string())?;
            Err(text)
        })
    }

    /// Waits until the page shows none of these texts.
    pub fn misses(&self, texts: &[&str]) -> Result<(), trial::Error> {
        wait_until(&format!("no {texts:?} on the page"), || {
            let text = self.text().map_err(|error| error.to_string())?;
            if texts.iter().all(|unwanted| !text.contains(unwanted)) {
                return Ok(());
            }
            Err(text)
        })
    }

    fn element(&self, what: &str) -> Result<Element, Error> {
        let locator = if what.starts_with("//") {
            Locator::XPath(what)
        } else {
            Locator::Css(what)
        };
        let find = || {
            self.act(&format!("find {what}"), self.client.find(locator))
                .map_err(|error| error.to_string())
        };
        Ok(wait_until(what, find)?)
    }

    /// The text of the element with this CSS selector or XPath, once it is there.
    pub fn text_of(&self, what: &str) -> Result<String, Error> {
        let element = self.element(what)?;
        self.act(&format!("read {what}"), element.text())
    }

    /// Clicks on an element once it is there. One that is being replaced is clicked on again.
    pub fn click(&self, what: &str) -> Result<(), Error> {
        Ok(wait_until(&format!("a click on {what}"), || {
            let click = || {
                let element = self.element(what)?;
                self.act(&format!("click on {what}"), element.click())
            };
            click().map_err(|error: Error| error.to_string())
        })?)
    }

    /// Clicks on the button, link or summary with this text.
    pub fn press(&self, label: &str) -> Result<(), Error> {
        self.press_in("", label)
    }

    /// The same within the element with this id.
    pub fn press_in(&self, id: &str, label: &str) -> Result<(), Error> {
        let within = if id.is_empty() {
            String::new()
        } else {
            format!("//*[@id='{id}']")
        };
        self.click(&format!(
            "{within}//*[(self::button or self::a or self::summary) and normalize-space()='{label}']"
        ))
    }

    /// Types into the field of this name in place of what was there.
    pub fn fill(&self, name: &str, text: &str) -> Result<(), Error> {
        let field = self.element(&format!("input[name='{name}']:not([type=hidden])"))?;
        self.act(&format!("clear {name}"), field.clear())?;
        self.act(&format!("type into {name}"), field.send_keys(text))
    }

    /// Chooses the option with this value in the list of this name.
    pub fn choose(&self, name: &str, value: &str) -> Result<(), Error> {
        let list = self.element(&format!("select[name='{name}']"))?;
        self.act(&format!("choose {value}"), list.select_by_value(value))
    }

    /// What a script in the page returns.
    pub fn ask(&self, script: &str) -> Result<Value, Error> {
        self.act("run a script", self.client.execute(script, Vec::new()))
    }

    /// By how many pixels the page is wider than its window.
    pub fn overflow(&self) -> Result<Value, Error> {
        self.ask(
            "const page = document.documentElement; return page.scrollWidth - page.clientWidth",
        )
    }

    /// Takes a picture of the whole page, as `NAME.png` in [`place::screenshots`].
    pub fn picture(&self, name: &str) -> Result<(), Error> {
        let png = self.act("take a picture", self.client.screenshot())?;
        fs::create_dir_all(place::screenshots())?;
        fs::write(place::screenshots().join(format!("{name}.png")), png)?;
        Ok(())
    }

    /// What the browser itself complained about since the last time it was asked: broken scripts, refused styles. Not
    /// answers that say no, which tests ask for.
    pub fn complaints(&self) -> Result<Vec<String>, Error> {
        let log = self.act("read the browser's log", self.client.issue_cmd(ReadLog))?;
        let entries = log.as_array().cloned().unwrap_or_default();
        Ok(entries
            .iter()
            .filter(|entry| entry["level"] == "SEVERE" || entry["level"] == "WARNING")
            .filter(|entry| entry["source"] != "network")
            .filter_map(|entry| entry["message"].as_str().map(str::to_owned))
            .collect())
    }
}

/// Chromium's own command for the console's messages.
#[derive(Debug)]
struct ReadLog;

impl WebDriverCompatibleCommand for ReadLog {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (
            http::Method::POST,
            Some(json!({"type": "browser"}).to_string()),
        )
    }
}

fn port(driver: &mut Child) -> Result<u16, Error> {
    let output = driver.stdout.take().ok_or("chromedriver has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some((_, port)) = line.split_once(LISTENS) {
            return Ok(port.trim_end_matches('.').parse()?);
        }
    }
    Err("chromedriver ended before it listened".into())
}

fn capabilities(window: Window, profile: &str) -> Map<String, Value> {
    let (width, height) = window.size;
    let mut arguments = vec![
        "--headless=new".to_owned(),
        "--no-sandbox".to_owned(),
        "--disable-gpu".to_owned(),
        "--disable-quic".to_owned(),
        "--disable-dev-shm-usage".to_owned(),
        "--no-first-run".to_owned(),
        "--disable-background-networking".to_owned(),
        "--disable-component-update".to_owned(),
        "--disable-sync".to_owned(),
        format!("--user-data-dir={profile}"),
        format!("--window-size={width},{height}"),
    ];
    if window.dark {
        arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
    }
    let script = if window.script { 1 } else { 2 };
    let mut options = json!({
        "args": arguments,
        "prefs": { "profile.managed_default_content_settings.javascript": script },
    });
    // A window of a desk cannot be as narrow as a phone.
    if width < 500 {
        options["mobileEmulation"] = json!({
            "deviceMetrics": { "width": width, "height": height, "pixelRatio": 2.0, "touch": true },
        });
    }
    let mut all = Map::new();
    all.insert("goog:chromeOptions".to_owned(), options);
    all.insert("goog:loggingPrefs".to_owned(), json!({ "browser": "ALL" }));
    all
}
