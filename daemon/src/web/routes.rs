//! What is where: each path with who may ask for it. The first question is always who asks.

use std::time::Instant;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};

use super::auth::{Caller, DELAY, Denied, Doorman};
use crate::metrics::Metrics;

/// What the server holds.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) doorman: Doorman,
    pub(super) metrics: Metrics,
}

type Answer = Response<Full<Bytes>>;

impl Site {
    /// Answers a request. Its body is never read.
    pub(super) async fn answer(&self, caller: &Caller, request: &Request<Incoming>) -> Answer {
        let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        match self.doorman.who(caller, authorization, Instant::now()) {
            Err(denied) => {
                tokio::time::sleep(DELAY).await;
                refusal(&denied)
            }
            // Each role may read metrics.
            Ok(_) => self.route(request.method(), request.uri().path()),
        }
    }

    fn route(&self, method: &Method, path: &str) -> Answer {
        if path != "/metrics" {
            return text(StatusCode::NOT_FOUND, "there is /metrics here\n".into());
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "metrics are read\n".into());
            answer.headers_mut().insert(ALLOW, "GET, HEAD".parse().expect("a header"));
            return answer;
        }
        let mut answer = text(StatusCode::OK, self.metrics.page());
        let kind = "text/plain; version=0.0.4; charset=utf-8".parse().expect("a header");
        answer.headers_mut().insert(CONTENT_TYPE, kind);
        answer
    }
}

fn refusal(denied: &Denied) -> Answer {
    match denied {
        Denied::Unknown => {
            let say = "a token is needed (duolog metrics token prints it), or a certificate of a user \
                       (duolog certs user makes it)\n";
            let mut answer = text(StatusCode::UNAUTHORIZED, say.into());
            let scheme = "Bearer".parse().expect("a header");
            answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            answer
        }
        Denied::Refused(refused) => text(StatusCode::FORBIDDEN, format!("{refused}\n")),
        Denied::TooMany => {
            let say = "too many wrong answers; wait a minute\n";
            let mut answer = text(StatusCode::TOO_MANY_REQUESTS, say.into());
            answer.headers_mut().insert(RETRY_AFTER, 60.into());
            answer
        }
    }
}

fn text(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    let kind = "text/plain; charset=utf-8".parse().expect("a header");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    let never = "no-store".parse().expect("a header");
    answer.headers_mut().insert(CACHE_CONTROL, never);
    answer
}
