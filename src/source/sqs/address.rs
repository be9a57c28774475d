//! How a queue may be named in the configuration: by its URL, its ARN, or its name.

use crate::source::SourceError;

/// A queue as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// `https://sqs.eu-central-1.amazonaws.com/123456789012/notifications`
    Url(String),
    /// A name, to be looked up; in another account where one is given.
    Name { name: String, account: Option<String> },
}

/// Reads an address; the region is the one that the address itself names, if it does.
pub(super) fn parse(text: &str) -> Result<(Address, Option<String>), SourceError> {
    let bad = || SourceError::BadAddress { address: text.to_owned() };
    if let Some(rest) = text.strip_prefix("arn:") {
        let parts: Vec<_> = rest.split(':').collect();
        let [_, "sqs", region, account, name] = parts[..] else { return Err(bad()) };
        if region.is_empty() || account.is_empty() || !is_name(name) {
            return Err(bad());
        }
        let address = Address::Name { name: name.to_owned(), account: Some(account.to_owned()) };
        return Ok((address, Some(region.to_owned())));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let (host, path) = rest.split_once('/').ok_or_else(bad)?;
        let name = path.rsplit('/').next().unwrap_or_default();
        if !matches!(scheme, "http" | "https") || host.is_empty() || !is_name(name) {
            return Err(bad());
        }
        return Ok((Address::Url(text.to_owned()), region_of(host).map(ToOwned::to_owned)));
    }
    if !is_name(text) {
        return Err(bad());
    }
    Ok((Address::Name { name: text.to_owned(), account: None }, None))
}

/// `sqs.REGION.amazonaws.com`, also with `-fips`, and the older `REGION.queue.amazonaws.com`.
fn region_of(host: &str) -> Option<&str> {
    let labels: Vec<_> = host.split(['.', ':']).collect();
    match labels[..] {
        ["sqs" | "sqs-fips", region, "amazonaws" | "api", ..] | [region, "queue", "amazonaws", ..] => {
            Some(region)
        }
        _ => None,
    }
}

/// 1–80 of letters, digits, `-` and `_`; a FIFO queue's ends in `.fifo`.
fn is_name(name: &str) -> bool {
    let stem = name.strip_suffix(".fifo").unwrap_or(name);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (1..=80).contains(&name.len()) && !stem.is_empty() && stem.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_arns_and_names_are_told_apart() {
        let url = |text: &str| Address::Url(text.to_owned());
        let name = |name: &str, account: Option<&str>| Address::Name {
            name: name.to_owned(),
            account: account.map(ToOwned::to_owned),
        };
        let aws = "https://sqs.eu-central-1.amazonaws.com/123456789012/notifications";
        let china = "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/n.fifo";
        let dual_stack = "https://sqs.eu-west-1.api.aws/123456789012/n";
        let local = "http://127.0.0.1:4566/000000000000/n";
        for (text, address, region) in [
            (aws, url(aws), Some("eu-central-1")),
            (china, url(china), Some("cn-north-1")),
            (dual_stack, url(dual_stack), Some("eu-west-1")),
            (local, url(local), None),
            ("arn:aws:sqs:eu-west-1:123456789012:n", name("n", Some("123456789012")), Some("eu-west-1")),
            ("notifications", name("notifications", None), None),
            ("notifications.fifo", name("notifications.fifo", None), None),
        ] {
            assert_eq!(parse(text).unwrap(), (address, region.map(ToOwned::to_owned)), "{text}");
        }
    }

    #[test]
    fn what_names_no_queue_is_refused() {
        for text in [
            "",
            ".fifo",
            "a b",
            "ftp://host/1/n",
            "https://host",
            "https://host/1/",
            "arn:aws:sns:eu-west-1:123456789012:n",
            "arn:aws:sqs::123456789012:n",
        ] {
            assert!(matches!(parse(text), Err(SourceError::BadAddress { .. })), "{text}");
        }
    }
}
