//! The packages as files.

use actix_files::NamedFile;
use actix_web::{HttpRequest, HttpResponse, http::header, mime, web};
use serde::Deserialize;

use super::{Context, packages::Format, page};

#[derive(Deserialize)]
pub(super) struct Name {
    name: String,
}

/// `GET /packages/NAME`, also in parts.
pub(super) async fn get(
    request: HttpRequest,
    path: web::Path<Name>,
    context: web::Data<Context>,
) -> HttpResponse {
    // Nothing but what is offered, so no name leads out of the folder.
    let offered = context.packages.list().await;
    let Some(package) = offered.into_iter().find(|one| one.name == path.name) else {
        return page::not_found(None);
    };
    let path = context.packages.folder().join(&package.name);
    let opened = web::block(move || NamedFile::open(path)).await;
    let file = match opened.map_err(std::io::Error::other).flatten() {
        Ok(file) => file,
        Err(error) => {
            tracing::error!(package = package.name, %error, "failed to open a package");
            return page::not_found(None);
        }
    };
    let kind = match package.format {
        Format::Deb => "application/vnd.debian.binary-package",
        Format::Tarball => "application/gzip",
    };
    let mut response = file
        .set_content_type(kind.parse().unwrap_or(mime::APPLICATION_OCTET_STREAM))
        .into_response(&request);
    let headers = response.headers_mut();
    // Ask again each time: another firmware may have another file under the same name.
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-cache"),
    );
    response
}
