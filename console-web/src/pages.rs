//! The pages, as the build put them into the program: from here alone, with nothing from elsewhere.

use axum::http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap,
    IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

/// A file of the pages.
#[derive(Debug)]
struct File {
    /// Where it is, from `/` on.
    path: &'static str,
    kind: &'static str,
    /// Its name has a hash of what is in it, so it never changes.
    fixed: bool,
    etag: &'static str,
    plain: &'static [u8],
    gzip: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// The page that all other paths lead to.
const INDEX: &str = "/index.html";

/// A file of the pages; the first page for every path that names no file.
pub(crate) fn answer(method: &Method, path: &str, headers: &HeaderMap) -> Response {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD")]).into_response();
    }
    let find = |path: &str| FILES.iter().find(|file| file.path == path);
    let named = path.rsplit('/').next().is_some_and(|name| name.contains('.'));
    let Some(file) = find(path).or_else(|| find(INDEX).filter(|_| !named)) else {
        return (StatusCode::NOT_FOUND, "there is no such page here\n").into_response();
    };
    let cache = if file.fixed { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut answer = if headers.get(IF_NONE_MATCH).is_some_and(|known| known == file.etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let accepts = headers.get(ACCEPT_ENCODING).and_then(|all| all.to_str().ok());
        let gzip = accepts.is_some_and(|all| {
            all.split(',').any(|one| one.split(';').next().is_some_and(|it| it.trim() == "gzip"))
        });
        let mut answer = if gzip { file.gzip } else { file.plain }.into_response();
        if gzip {
            answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(file.kind));
        answer
    };
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(ETAG, HeaderValue::from_static(file.etag));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    answer
}
