//! The embedded style sheet, script and icon.

use std::{fmt::Write as _, sync::LazyLock};

use actix_web::{
    HttpResponse,
    http::header::{self, HeaderValue},
    web,
};
use rust_embed::RustEmbed;
use serde::Deserialize;

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Assets;

/// Names this build's assets: they may be cached for ever under their address, which contains it.
pub(super) static BUILD: LazyLock<String> = LazyLock::new(|| {
    let mut names: Vec<_> = Assets::iter().collect();
    names.sort();
    let hashes = names.iter().filter_map(|name| Assets::get(name));
    // Eight bytes of each are more than enough to tell one build from another.
    hashes.fold(String::new(), |mut build, file| {
        for byte in &file.metadata.sha256_hash()[..4] {
            let _ = write!(build, "{byte:02x}");
        }
        build
    })
});

/// The icon as an address that contains it, which saves a request.
pub(super) static ICON: LazyLock<String> = LazyLock::new(|| {
    let file = Assets::get("icon.svg")
        .map(|file| file.data)
        .unwrap_or_default();
    let svg = String::from_utf8_lossy(&file);
    let encoded = svg
        .trim()
        .replace('#', "%23")
        .replace('<', "%3C")
        .replace('>', "%3E");
    format!("data:image/svg+xml,{encoded}")
});

/// Where this build's asset of that name is.
pub(super) fn address(name: &str) -> String {
    format!("/assets/{name}?{}", *BUILD)
}

#[derive(Deserialize)]
pub(super) struct Name {
    name: String,
}

/// `GET /assets/NAME`
pub(super) async fn get(path: web::Path<Name>, request: actix_web::HttpRequest) -> HttpResponse {
    let Some(file) = Assets::get(&path.name) else {
        return super::page::not_found(None);
    };
    let kind = match path.name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let caching = if request.query_string() == *BUILD {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, HeaderValue::from_static(kind)))
        .insert_header((header::CACHE_CONTROL, HeaderValue::from_static(caching)))
        .body(file.data.into_owned())
}
