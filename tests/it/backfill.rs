//! `ingest` and `quarantine` as an operator calls them, on the real binary.

use std::{path::Path, process::Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{ledger::body, service::Service};

fn service() -> Service {
    Service::new("[database]\nurl = \"sqlite://{folder}/ledger.db\"\n")
}

fn written(folder: &TempDir, lines: &[Vec<u8>]) -> String {
    let path = folder.path().join("backfill.ndjson");
    std::fs::write(&path, lines.join(&b'\n')).unwrap();
    path.to_str().unwrap().to_owned()
}

fn answer(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn counts(summary: &Value) -> [u64; 5] {
    ["lines", "appended", "redelivered", "conflicts", "quarantined"].map(|it| summary[it].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_read_whole_and_reading_it_again_changes_nothing() {
    let (service, folder) = (service(), tempfile::tempdir().unwrap());
    let mut lines: Vec<_> = (0..1200).map(|n| body(&format!("m-{n}"), "u", json!({}))).collect();
    lines.push(body("m-7", "u", json!({})));
    lines.push(body("m-8", "u", json!({ "title": "another" })));
    let file = written(&folder, &lines);

    let output = service.run(&["ingest", &file, "--json"]).await;
    let summary = answer(&output);
    assert_eq!(counts(&summary), [1202, 1200, 1, 1, 0], "{summary}");
    assert_eq!((output.status.code(), &summary["finished"]), (Some(0), &json!(true)));

    let output = service.run(&["ingest", &file]).await;
    let text = String::from_utf8_lossy(&output.stdout);
    let begin = "1,202 lines: 0 appended, 1,201 redelivered, 1 in conflict, 0 in quarantine";
    assert!(text.starts_with(begin), "{text}");
    assert!(output.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_line_is_held_shown_mended_and_discarded() {
    let (service, folder) = (service(), tempfile::tempdir().unwrap());
    let bad = body("m-2", "u", json!({ "title": "" }));
    let lines = [body("m-1", "u", json!({})), bad.clone(), body("m-3", "u", json!({}))];
    let file = written(&folder, &lines);

    let output = service.run(&["ingest", &file, "--json"]).await;
    let summary = answer(&output);
    assert_eq!((output.status.code(), counts(&summary)), (Some(1), [3, 2, 0, 0, 1]), "{summary}");
    assert_eq!(summary["firstReasons"][0]["place"], "line 2");

    let listed = answer(&service.run(&["quarantine", "list", "--json"]).await);
    let held = &listed["items"][0];
    assert_eq!(held["source"], "ndjson:backfill.ndjson line 2");
    assert_eq!(held["reason"], summary["firstReasons"][0]["reason"]);
    let id = held["id"].as_str().unwrap();
    let shown = answer(&service.run(&["quarantine", "show", id, "--json"]).await);
    assert_eq!(shown["body"].as_str().unwrap().as_bytes(), bad);

    // To be read again does not help this one; what helps is to mend it and hand it in.
    let output = service.run(&["quarantine", "retry", "--all", "--json"]).await;
    assert_eq!(
        (output.status.code(), &answer(&output)["results"][0]["result"]),
        (Some(1), &json!("rejected"))
    );
    let whole = service.run(&["quarantine", "show", id, "--body"]).await.stdout;
    assert_eq!(whole, bad);
    let mended = String::from_utf8(whole).unwrap().replace(r#""title":"""#, r#""title":"t""#);
    let file = written(&folder, &[mended.into_bytes()]);
    let output = service.run(&["ingest", &file, "--json"]).await;
    assert_eq!((output.status.code(), counts(&answer(&output))), (Some(0), [1, 1, 0, 0, 0]));

    let discard = ["quarantine", "discard", id, "--by", "ops", "--note", "mended", "--json"];
    assert_eq!(answer(&service.run(&discard).await)["results"][0]["state"], "discarded");
    let listed = answer(&service.run(&["quarantine", "list", "--state", "discarded", "--json"]).await);
    let decided = &listed["items"][0]["decided"];
    assert_eq!((&decided["by"], &decided["note"]), (&json!("ops"), &json!("mended")));
    let left = service.run(&["quarantine", "list"]).await;
    assert_eq!(String::from_utf8_lossy(&left.stdout).trim(), "nothing is in quarantine that was asked for");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let service = service();
    let output = service.run(&["ingest", "no-such-file.ndjson"]).await;
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.starts_with("error: no-such-file.ndjson cannot be read"), "{text}");
    assert!(!Path::new("no-such-file.ndjson").exists());
}
