//! `/downloads`: the VM's packages, how to install one by hand, and what containers need.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use maud::{Markup, html};

use super::{
    super::{
        Context,
        address::own_addresses,
        guard::visitor::Visitor,
        packages::{Format, Package},
    },
    command, containers, frame,
};

/// `GET /downloads`
pub(in super::super) async fn page(
    request: HttpRequest,
    visitor: Visitor,
    context: web::Data<Context>,
) -> HttpResponse {
    let packages = context.packages.list().await;
    let view = context.view.borrow().clone();
    let own = own_addresses(&request);
    let pi = own.first().map_or("usbip-pi.local", String::as_str);
    let body = html! {
        section aria-labelledby="packages-title" {
            h2 #packages-title { "vm-helper, the program for the VM" }
            p { "It attaches the Pi’s devices to the VM’s kernel. One static program that runs on every Linux "
                "with a kernel that has the module " code { "vhci_hcd" } "." }
            (offered(&packages))
        }
        @if !packages.is_empty() {
            section aria-labelledby="by-hand-title" {
                h2 #by-hand-title { "By hand, in three steps" }
                (by_hand(&packages, pi))
            }
        }
        (containers::section(&view))
    };
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(frame::frame("Downloads", &visitor, &body).into_string())
}

fn offered(packages: &[Package]) -> Markup {
    html! {
        @if packages.is_empty() {
            p.notice { "This Pi carries no packages. In the project’s sources, " code { "make packages" } " makes them." }
        }
        ul .devices {
            @for package in packages {
                li.card {
                    div.top {
                        h3 { (heading(package)) }
                        span.size { (package.size.div_ceil(1024)) " KiB" }
                    }
                    p.tty { a href={ "/packages/" (package.name) } download { (package.name) } }
                    p.quiet { "Version " (package.version) ", SHA-256 " code.digest { (package.sha256) } }
                }
            }
        }
    }
}

fn heading(package: &Package) -> String {
    let processor = match package.arch.as_str() {
        "amd64" => "Intel and AMD (amd64)",
        _ => "ARM (arm64)",
    };
    match package.format {
        Format::Deb => format!("Debian and Ubuntu, {processor}"),
        Format::Tarball => format!("Other distributions, {processor}"),
    }
}

fn by_hand(packages: &[Package], pi: &str) -> Markup {
    let pick = |format| {
        let first = packages.iter().find(|package| package.format == format);
        first.map(|package| install(package, pi))
    };
    let address = address(pi);
    html! {
        ol.steps {
            li {
                h3 { "Install it on the VM" }
                @if let Some(commands) = pick(Format::Deb) {
                    p { "On Debian, Ubuntu and what comes from them:" }
                    (command(&commands))
                }
                @if let Some(commands) = pick(Format::Tarball) {
                    p { "Elsewhere:" }
                    (command(&commands))
                }
                p.quiet { "On an ARM machine, take the files of arm64." }
            }
            li {
                h3 { "Tell the VM about the Pi" }
                (command(&format!(
                    "sudo sed -i 's/^DEFAULT_PI_HOST=.*/DEFAULT_PI_HOST={address}/' /etc/usbip/pi.conf\n\
                     sudo usermod -aG usbip $USER"
                )))
                p { "The Pi logs in as this user, with its own key, which may do nothing but attach and detach devices. "
                    "The page about the " a href="/vm#key" { "VM" } " has the line for " code { "~/.ssh/authorized_keys" } "." }
            }
            li {
                h3 { "Pair in the portal" }
                p { "Name the VM and the user, compare the fingerprint, and confirm. " code { "vm-helper check" }
                    " on the VM says what is missing, if anything." }
            }
        }
    }
}

fn install(package: &Package, pi: &str) -> String {
    let Package { name, sha256, .. } = package;
    let fetch = format!(
        "curl -fsSLO http://{pi}/packages/{name} &&\necho '{sha256}  {name}' | sha256sum -c &&\n"
    );
    match package.format {
        Format::Deb => format!("{fetch}sudo apt-get install ./{name}"),
        Format::Tarball => {
            let folder = name.trim_end_matches(".tar.gz");
            format!("{fetch}tar -xzf {name} &&\nsudo ./{folder}/install.sh")
        }
    }
}

/// `NAME` of `NAME:PORT`.
fn address(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_no_part_of_the_address() {
        assert_eq!(address("192.168.1.7:8080"), "192.168.1.7");
        assert_eq!(address("usbip-pi.local"), "usbip-pi.local");
        assert_eq!(address("[fd00::7]:8080"), "fd00::7");
    }
}
