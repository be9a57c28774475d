//! Answers that are not sent again to whoever has them (RFC 9110, section 13).

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use super::problem::Problem;

/// The answer as JSON with a weak entity tag; only the tag, with 304, where `If-None-Match` names it.
pub(super) fn answer_unless_known(headers: &HeaderMap, answer: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(answer).map_err(|_| Problem::fault())?;
    let tag = format!("W/\"{:032x}\"", xxh3_128(&body));
    let is_known = headers.get_all(header::IF_NONE_MATCH).iter().any(|it| names(it, &tag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let json = HeaderValue::from_static("application/json");
        ([(header::CONTENT_TYPE, json)], Body::from(body)).into_response()
    };
    let tag = HeaderValue::try_from(tag).map_err(|_| Problem::fault())?;
    response.headers_mut().insert(header::ETAG, tag);
    // Whoever keeps it asks first, and nobody keeps it for another.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

/// Whether a list of entity tags has this one, by weak comparison; `*` is any.
fn names(list: &HeaderValue, tag: &str) -> bool {
    let opaque = |it: &str| it.strip_prefix("W/").unwrap_or(it).to_owned();
    let list = list.to_str().unwrap_or_default();
    list.trim() == "*" || list.split(',').any(|it| opaque(it.trim()) == opaque(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_the_answer_gets_its_tag_only() {
        let with = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::IF_NONE_MATCH, value.parse().unwrap());
            }
            answer_unless_known(&headers, &"answer").unwrap()
        };
        let tag = with(None).headers()[header::ETAG].to_str().unwrap().to_owned();
        let strong = tag.trim_start_matches("W/").to_owned();
        for (value, expected) in [
            (None, 200),
            (Some("\"other\""), 200),
            (Some(""), 200),
            (Some(tag.as_str()), 304),
            (Some(strong.as_str()), 304),
            (Some(format!("\"a\", {tag}").as_str()), 304),
            (Some("*"), 304),
        ] {
            let answer = with(value);
            assert_eq!(answer.status().as_u16(), expected, "{value:?}");
            assert_eq!(answer.headers()[header::ETAG], tag.as_str());
        }
    }
}
