//! The web portal on port 8080.
//!
//! | route | |
//! |---|---|
//! | `GET /claim`, `POST /claim` | the first visit: choosing a password |
//! | `GET /sign-in`, `POST /sign-in` | signing in |
//! | `POST /sign-out` | and out |
//! | `GET /account` | password, browsers, tokens for programs |
//! | `POST /account/...` | change the password; end a session, or all; make and remove tokens |
//! | `GET /` | the dashboard |
//! | `GET /devices/BUSID` | all about one device: its name, the rules for its like |
//! | `POST /devices/BUSID/attach`, `detach`, `power-cycle` | lead back to the dashboard with the outcome |
//! | `POST /devices/BUSID/rename`, `rule` | name it, make a rule; lead back to its page |
//! | `POST /names/forget`, `POST /rules/forget`, `POST /holds/forget` | also for what is not plugged in |
//! | `POST /attach-all` | attach every device; leads back to the dashboard with the outcome |
//! | `GET /vm` | who is paired; pairing, `?host=HOST&user=USER` fills the form |
//! | `GET /vm/events` | server-sent events: the page's live part, then again after each change |
//! | `POST /vm/test` | test the way to a VM |
//! | `POST /vm/key` | bring the Pi's key to a VM, with a password |
//! | `POST /vm/pair` | pair |
//! | `GET, POST /vm/disconnect` | end the pairing, after a question |
//! | `GET, POST /vm/join` | pairing from the VM in one line: the line, and making one |
//! | `GET /join/TOKEN` | the script that the line runs |
//! | `GET /join/TOKEN/invitation`, `POST /join/TOKEN` | what vm-helper needs, and what it reports |
//! | `GET /events` | server-sent events: the dashboard's live part, then again after each change |
//! | `GET /history` | what happened, `?kind=KIND&device=IDENTITY&from=DAY&to=DAY` filters |
//! | `GET /history.csv`, `GET /history.json` | the same as a file |
//! | `GET /assets/NAME` | style sheet, script, icon |
//! | `GET /downloads` | the VM's packages, and what containers need |
//! | `GET /packages/NAME` | a package |
//! | `GET /log` | what the kernel and the appliance said lately |
//! | `GET /log/events` | server-sent events: the log's live part, again when there is more |
//! | `GET /healthz` | `ok` while the manager's loop answers, else 503 |
//! | `GET /api/v1/status` | the manager's view as JSON |
//! | `GET /api/v1/events` | what happened, from a cursor on |
//! | `GET /api/v1/devices` | every device that was ever seen |
//! | `POST /api/v1/...` | the actions, by token; `GET /api/v1/openapi.json` describes the whole API |
//! | `GET /metrics` | figures for Prometheus |
//!
//! - [`context`]: what the portal needs of the appliance
//! - [`server`]: listening, limits
//! - [`routes`]: which handler answers what
//! - [`guard`]: what every request must pass
//! - [`entry`]: claiming, signing in and out
//! - [`account`]: what one can do about one's access
//! - [`page`]: the HTML
//! - [`live`]: the events
//! - [`mod@log`]: the log and its events
//! - [`action`]: how what a person asked for came out
//! - [`mod@device`]: what a person asks for about one device
//! - [`pairing`]: what a person does about the pairing
//! - [`pairing_live`]: the events of that page
//! - [`history`]: what happened, for people and programs
//! - [`machine`]: what programs ask for; [`api`]: what they may do; [`metrics`]: figures
//! - [`join`]: pairing from the VM in one line
//! - [`packages`]: the VM's packages that are at hand
//! - [`download`]: the packages as files
//! - [`mod@address`]: where this portal is, for other machines
//! - [`assets`]: the embedded files
//! - [`mod@text`]: texts from devices and the VM, made fit to be shown

mod account;
mod action;
mod address;
mod api;
mod assets;
mod context;
mod device;
mod download;
mod entry;
mod guard;
mod history;
mod join;
mod live;
mod log;
mod machine;
mod metrics;
pub mod packages;
mod page;
mod pairing;
mod pairing_live;
mod routes;
mod server;
mod text;

pub use context::Context;
pub use join::Joins;
pub use live::MOST_READERS;
pub use packages::Packages;
pub use server::{Portal, PortalError, serve};
