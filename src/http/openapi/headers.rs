//! The headers of answers: which there are, what they hold, and which answers carry them.
//!
//! What browsers are told for pages of other origins (CORS) is the Fetch standard's and not described here.

use axum::http::StatusCode;
use serde_json::{Value, json};

/// What decides which headers an answer carries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Whether it is known who calls, and so how much the caller may ask for.
    pub(super) has_caller: bool,
    /// Whether the operation's answers have entity tags.
    pub(super) has_tags: bool,
    /// Whether it is one that has no end.
    pub(super) is_stream: bool,
}

/// A header of answers.
struct Carried {
    name: &'static str,
    /// Its name among the components.
    component: &'static str,
    description: &'static str,
    /// Whether all answers that may carry it do.
    is_promised: bool,
    pattern: &'static str,
    is_number: bool,
    by: fn(Answer) -> bool,
}

const CARRIED: [Carried; 10] = [
    Carried {
        by: |_| true,
        ..Carried::promised(
            "x-request-id",
            "RequestId",
            "The caller's own id of the request, or a new one",
            "^[!-~]{1,128}$",
        )
    },
    Carried {
        by: |_| true,
        ..Carried::promised(
            "cache-control",
            "CacheControl",
            "Who may keep the answer: nobody, or its caller, who asks before each use",
            "^(no-store|no-cache|private, no-cache)$",
        )
    },
    Carried {
        by: |it| it.has_tags && matches!(it.status, StatusCode::OK | StatusCode::NOT_MODIFIED),
        ..Carried::promised("etag", "EntityTag", "Of this answer, for If-None-Match", "^W/\"[0-9a-f]{32}\"$")
    },
    Carried {
        by: |it| it.has_caller,
        ..Carried::possible(
            "ratelimit-policy",
            "RateLimitPolicy",
            "How much the caller may ask for: q requests at once, and all of them again after w seconds without \
             any; absent where there is no limit",
            "^\"(service|user)\";q=[0-9]+;w=[0-9]+$",
        )
    },
    Carried {
        by: |it| it.has_caller,
        ..Carried::possible(
            "ratelimit",
            "RateLimit",
            "How the caller stands: r requests are left, and all of them are back in t seconds; absent where \
             there is no limit",
            "^\"(service|user)\";r=[0-9]+;t=[0-9]+$",
        )
    },
    Carried {
        by: |it| {
            let later =
                [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
            later.contains(&it.status)
        },
        is_number: true,
        ..Carried::promised("retry-after", "RetryAfter", "In how many seconds to send the request again", "")
    },
    Carried {
        by: |it| it.status == StatusCode::UNAUTHORIZED,
        ..Carried::promised("www-authenticate", "Challenge", "How to say who calls", "^Bearer realm=")
    },
    Carried {
        by: |it| it.is_stream,
        ..Carried::promised(
            "x-accel-buffering",
            "Unbuffered",
            "Asks proxies to pass on what comes at once",
            "^no$",
        )
    },
    Carried {
        by: Answer::may_be_packed,
        ..Carried::possible("content-encoding", "Packed", "Of large answers, for those who take it", "^gzip$")
    },
    Carried {
        by: Answer::may_be_packed,
        ..Carried::possible("vary", "Vary", "What the form of a large answer depends on", "^accept-encoding$")
    },
];

impl Carried {
    const fn promised(
        name: &'static str,
        component: &'static str,
        description: &'static str,
        pattern: &'static str,
    ) -> Self {
        let by = |_| false;
        Self { name, component, description, is_promised: true, pattern, is_number: false, by }
    }

    const fn possible(
        name: &'static str,
        component: &'static str,
        description: &'static str,
        pattern: &'static str,
    ) -> Self {
        Self { is_promised: false, ..Self::promised(name, component, description, pattern) }
    }
}

impl Answer {
    fn may_be_packed(self) -> bool {
        let has_body = !matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        has_body && !self.is_stream
    }
}

/// All of them, for the components.
pub(super) fn components() -> Value {
    let component = |it: &Carried| {
        let schema = if it.is_number {
            json!({"type": "integer", "minimum": 1})
        } else {
            json!({"type": "string", "pattern": it.pattern})
        };
        let header = json!({"description": it.description, "required": it.is_promised, "schema": schema});
        (it.component.to_owned(), header)
    };
    Value::Object(CARRIED.iter().map(component).collect())
}

/// Those of one answer.
pub(super) fn of(answer: Answer) -> Value {
    let carried = CARRIED.iter().filter(|it| (it.by)(answer));
    let reference = |it: &Carried| {
        (it.name.to_owned(), json!({"$ref": format!("#/components/headers/{}", it.component)}))
    };
    Value::Object(carried.map(reference).collect())
}
