//! The command line as people use it: the real binary, what it prints and how it ends.

use std::{net::TcpListener, path::Path, process::Stdio, time::Duration};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::support::http_client;

/// How long the demo may take.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn the_demo_comes_out_as_it_has_to_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let output = timeout(PATIENCE, demo(&folder, &["--once"]).output()).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(!text.contains('\x1b'), "no colours where there is no terminal");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let wide =
        text.lines().filter(|it| it.chars().count() > 100 && !it.contains("demo-")).collect::<Vec<_>>();
    assert_eq!(wide, Vec::<&str>::new());
    insta::assert_snapshot!(masked(&text, folder.path()));
}

/// The port that the demo likes best is taken here, so that it has to find another.
#[tokio::test]
async fn the_demo_stays_for_commands_that_work_until_ctrl_c() {
    let _taken = TcpListener::bind("127.0.0.1:8080"); // or taken by somebody else
    let folder = tempfile::tempdir().unwrap();
    let mut child = demo(&folder, &[]).stdout(Stdio::piped()).spawn().unwrap();
    let text = timeout(PATIENCE, printed_until(&mut child, "Ctrl-C ends it")).await.unwrap();
    assert!(text.contains("8080 is taken"), "{text}");
    let commands = commands(&text);
    assert_eq!(commands.len(), 6, "{text}");
    for command in commands {
        let status = call(&command).await;
        assert!(status.is_success(), "{status} to {command}");
    }
    signal(&child, "INT");
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_demo_can_be_stopped_in_the_middle() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = demo(&folder, &["--once"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    timeout(PATIENCE, printed_until(&mut child, "repeated")).await.unwrap();
    signal(&child, "TERM");
    let status = timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1), "not all was told");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// The demo with this folder to work in, and for temporary files.
pub(crate) fn demo(folder: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_notification-ledger"));
    command.arg("demo").args(arguments).current_dir(folder.path()).env("TMPDIR", folder.path());
    // Neither may play a part.
    command.env("RUST_LOG", "trace").env("http_proxy", "http://127.0.0.1:9");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Everything up to and with the line that holds this text.
pub(crate) async fn printed_until(child: &mut Child, end: &str) -> String {
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let mut text = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        text.push_str(&line);
        text.push('\n');
        if line.contains(end) {
            return text;
        }
    }
    panic!("it ended before {end:?}:\n{text}");
}

fn signal(child: &Child, name: &str) {
    let arguments = [format!("-{name}"), child.id().unwrap().to_string()];
    assert!(std::process::Command::new("kill").args(arguments).status().unwrap().success());
}

/// The commands that are offered, each whole.
fn commands(text: &str) -> Vec<String> {
    let (_, offered) = text.split_once("Your turn").unwrap();
    let mut commands: Vec<String> = Vec::new();
    for line in offered.lines().skip(1) {
        if line.starts_with("  curl ") {
            commands.push(line.trim().to_owned());
        } else if line.starts_with("    ") {
            commands.last_mut().unwrap().push_str(line.trim());
        }
    }
    commands
}

/// Does what curl does with the few options that the commands have.
async fn call(command: &str) -> reqwest::StatusCode {
    let (head, body) = match command.split_once(" -d '") {
        Some((head, body)) => (head, body.strip_suffix('\'')),
        None => (command, None),
    };
    let (url, options) =
        head.split(' ').collect::<Vec<_>>().split_last().map(|(url, it)| (*url, it.to_vec())).unwrap();
    let client = http_client();
    let ["curl", "-s", "-H", file, options @ ..] = options.as_slice() else { panic!("{command}") };
    let request = match (options, body) {
        ([], None) => client.get(url),
        ([], Some(body)) => client.post(url).body(body.to_owned()),
        (["-X", "POST"], None) => client.post(url),
        _ => panic!("an option that is new here: {command}"),
    };
    let header = std::fs::read_to_string(file.strip_prefix('@').unwrap()).unwrap();
    let (name, value) = header.split_once(": ").unwrap();
    request.header(name, value).send().await.unwrap().status()
}

/// The text without what differs from run to run.
fn masked(text: &str, folder: &Path) -> String {
    let text = text.replace("; 8080 is taken", "");
    let (head, story) = text.split_once("\nWhat happened").unwrap();
    let (story, audit) = story.split_once("\nOne message").unwrap();
    let (audit, end) = audit.split_once("\nThe inbox").unwrap();
    let prefix = format!("{}/notification-ledger-demo-", folder.display());
    let head = head.lines().map(|line| masked_words(&line.replace(&prefix, "[folder]"), true));
    // Where rows of the timeline are folded depends on how long a call took.
    let mut rows: Vec<String> = Vec::new();
    for line in audit.lines() {
        match rows.last_mut().filter(|_| line.starts_with(&" ".repeat(20))) {
            Some(row) => row.extend([" ", line.trim_start()]),
            None => rows.push(line.to_owned()),
        }
    }
    let audit = rows.iter().map(|line| masked_words(line, true));
    let end = end.lines().map(|line| masked_words(line, false));
    let join = |lines: Vec<String>| lines.join("\n");
    format!(
        "{}\n\nWhat happened{story}\nOne message{}\n\nThe inbox{}",
        join(head.collect()),
        join(audit.collect()),
        join(end.collect()),
    )
}

/// A line with names for times, ports, places and durations, where `close` with single spaces.
fn masked_words(line: &str, close: bool) -> String {
    let words: Vec<&str> = line.split(' ').filter(|it| !close || !it.is_empty()).collect();
    let word = |(at, word): (usize, &&str)| {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        let (bare, mark) = word.split_at(word.trim_end_matches([',', ';']).len());
        if bare.ends_with('Z') && bare.contains(':') {
            return format!("[time]{mark}");
        }
        if let Some((before, port)) = word.split_once("127.0.0.1:") {
            let path = port.trim_start_matches(|it: char| it.is_ascii_digit());
            return format!("{before}127.0.0.1:[port]{path}");
        }
        if word.starts_with("[folder]") {
            return "[folder]".to_owned();
        }
        if word.strip_prefix("0-").is_some_and(is_number) {
            return "[place]".to_owned();
        }
        let unit = words.get(at + 1).map(|it| it.trim_end_matches([',', ';']));
        if is_number(word) && unit == Some("ms") { "[n]".to_owned() } else { (*word).to_owned() }
    };
    let indent = if close { line.len() - line.trim_start().len() } else { 0 };
    " ".repeat(indent) + &words.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
}
