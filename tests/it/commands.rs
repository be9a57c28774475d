//! Commands that are given too little: what they still do, and what they say.

use std::process::Output;

use crate::support::service::Service;

const DATABASE: &str = "[database]\nurl = \"sqlite://{folder}/ledger.db\"\n";
const MESSAGE: &str =
    r#"{"messageId":"m-1","notificationType":"PUSH","recipientId":"user-1","title":"News"}"#;

#[tokio::test]
async fn ingest_plans_for_providers_whose_secrets_it_does_not_have() {
    let config = format!(
        "{DATABASE}[push]\nprovider = \"acme\"\n[providers.acme]\nkind = \"http\"\n\
         url = \"https://push.example/\"\nsecrets = {{ key = \"env:NO_SUCH_VARIABLE_HERE\" }}\n"
    );
    let service = Service::new(&config);
    std::fs::write(service.folder().join("messages.ndjson"), MESSAGE).unwrap();
    let output = service.run(&["ingest", "messages.ndjson"]).await;
    assert!(output.status.success(), "{}", said(&output));
    let audit = service.run(&["audit", "message", "m-1", "--json"]).await;
    assert!(String::from_utf8_lossy(&audit.stdout).contains("acme"), "{audit:?}");
    let check = service.run(&["config", "check"]).await;
    assert_eq!(check.status.code(), Some(1), "who delivers needs the secret");
}

/// What a command that failed says.
fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
