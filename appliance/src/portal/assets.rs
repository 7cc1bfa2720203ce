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

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance of a colour such as `#1b211c` (WCAG 2.2).
    fn luminance(colour: &str) -> f64 {
        let channel = |at: usize| {
            let value = u8::from_str_radix(&colour[at..at + 2], 16).unwrap();
            let value = f64::from(value) / 255.0;
            if value <= 0.040_45 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    #[test]
    fn text_can_be_read_in_both_themes() {
        let sheet = Assets::get("style.css").unwrap().data;
        let sheet = String::from_utf8_lossy(&sheet);
        let themes: Vec<&str> = sheet.split(":root {").skip(1).take(2).collect();
        assert_eq!(themes.len(), 2);
        for theme in themes {
            let colour = |name: &str| {
                let (_, rest) = theme.split_once(&format!("--{name}: ")).unwrap();
                &rest[..7]
            };
            for (text, ground) in [
                ("text", "ground"),
                ("text", "card"),
                ("text", "grey-ground"),
                ("quiet", "ground"),
                ("quiet", "card"),
                ("link", "ground"),
                ("link", "card"),
                ("green", "green-ground"),
                ("yellow", "yellow-ground"),
                ("grey", "grey-ground"),
                ("red", "red-ground"),
                // Buttons.
                ("ground", "text"),
                ("ground", "red"),
            ] {
                let (a, b) = (luminance(colour(text)), luminance(colour(ground)));
                let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
                // Level AA for text of any size.
                assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.2}");
            }
        }
    }
}
