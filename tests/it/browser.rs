//! The example of `docs/inbox.md` in a real browser, against the demo: what a user of an app sees and clicks.

use std::{process::Stdio, time::Duration};

use tokio::time::timeout;

use crate::{
    cli::{demo, printed_until},
    support::{script::node, variable},
};

/// How long the demo may take to tell its story.
const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::test]
async fn the_example_lists_counts_marks_and_shows_what_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = demo(&folder, &[]).stdout(Stdio::piped()).spawn().unwrap();
    let text = timeout(PATIENCE, printed_until(&mut child, "Ctrl-C ends it")).await.unwrap();
    let offered = text.split_once("Your turn").unwrap().1;
    let page = offered.lines().map(str::trim).find(|it| it.starts_with("http://")).unwrap();
    let command = offered.lines().find_map(|it| it.trim().strip_prefix("curl -s -H @")).unwrap();
    let (header, inbox) = command.split_once(' ').unwrap();
    let api = inbox.split_once("/v1/").unwrap().0;
    let chromium = variable("LEDGER_TEST_CHROMIUM");
    let said = node(include_str!("browser.mjs"), &[&chromium, page, api, header], &[]).await;
    assert_eq!(said.lines().last(), Some("done"), "{said}");
}
