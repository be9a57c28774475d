//! Commands that work as they are printed, for whoever wants to look around. Pure.

use crate::id::{MessageId, RecipientId};

/// What there is to call.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    /// The address of the API.
    pub(super) base: &'a str,
    /// The file with the header that says who calls.
    pub(super) header: &'a str,
    /// Somebody with an inbox.
    pub(super) recipient: &'a RecipientId,
    /// A message to them.
    pub(super) message: &'a MessageId,
    /// A message that they have not read.
    pub(super) unread: Option<&'a str>,
}

/// What each is for, and the command.
pub(super) fn examples(scene: &Scene<'_>) -> Vec<(String, String)> {
    let Scene { base, header, recipient, message, unread } = scene;
    let curl = format!("curl -s -H @{header}");
    let inbox = format!("{base}/v1/recipients/{recipient}/inbox");
    let mut examples = vec![
        (format!("the inbox of {recipient}, newest first"), format!("{curl} {inbox}")),
        (
            "how many items are unseen and unread, also by category".to_owned(),
            format!("{curl} {inbox}/counts"),
        ),
    ];
    examples.extend(unread.map(|unread| {
        (format!("{recipient} reads {unread}"), format!("{curl} -X POST {inbox}/{unread}/read"))
    }));
    examples.extend([
        (
            "everything that is known of one message".to_owned(),
            format!("{curl} {base}/v1/messages/{message}"),
        ),
        ("what the service counts, for Prometheus".to_owned(), format!("{curl} {base}/metrics")),
        (
            "a message of your own; sent twice, it is a redelivery".to_owned(),
            format!(
                "{curl} {base}/v1/messages -d '{{\"messageId\": \"mine-1\",\n  \"notificationType\": \
                 [\"APP_NOTIFICATION\", \"PUSH\"], \"recipientId\": \"{recipient}\", \"title\": \"Hello\"}}'"
            ),
        ),
    ]);
    examples
}
